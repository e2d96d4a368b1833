//! The library in a program of its own: a server, a store over it without a wire, a lead, and a write that only the
//! leader may do. `cargo run --example library`

use std::error::Error;
use std::time::Duration;

use quorate::embed::{Config, Server};
use quorate::fleet::store::{EventType, Op, StateStore, Watched};
use quorate::keyspace::auth::Credentials;
use quorate::support::urls::parse_list;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::temp_dir().join(format!("quorate-library-{}", std::process::id()));
    let mut config = Config::default();
    config.member.data_dir = dir.to_string_lossy().into_owned();
    config.member.listen_client = parse_list("http://127.0.0.1:0")?;
    config.member.listen_peer = parse_list("http://127.0.0.1:0")?;
    config.log.outputs = vec!["/dev/null".to_owned()];
    let server = Server::spawn(config.build()?).await?;
    server.ready().await;

    let store = server.store(&Credentials::default())?;
    let mut events = store.watch(Watched::Prefix(b"jobs/"), 0).await?;
    let guard = store.campaign("scheduler", "me", Duration::from_secs(10)).await?;
    let done =
        store.do_transaction(&[guard.fence()], &[Op::put("jobs/1", "for worker 7")], &[]).await?;
    assert!(done.committed && guard.is_held());
    let event = events.next().await.ok_or("a watch does not end by itself")??;
    assert_eq!((event.kind, &event.kv.key[..]), (EventType::Put, &b"jobs/1"[..]));
    guard.resign().await?;
    assert_eq!(store.get_leader("scheduler").await?, None);

    store.close().await;
    server.stop().await?;
    std::fs::remove_dir_all(dir)?;
    Ok(())
}
