//! Authentication: who may do what, drawn from the seed and asked of both servers.
//!
//! ```text
//! seed ─▶ script of (who, call) ─▶ each server with its own tokens ─▶ answers ─▶ equal? finding
//! ```
//!
//! Even seeds are played with simple tokens, odd ones with JWTs, which carry the revision at which they were given and
//! so grow old with every change.

pub(super) mod call;
pub(super) mod follow;
mod ranges;
mod script;

use anyhow::Result;

use super::run::Run;
use super::scenes::{Played, Stage};
use crate::member::Workspace;

/// Cheap passwords.
const BCRYPT: &str = "--bcrypt-cost=4";
/// Of an HMAC.
const SECRET: &[u8] = b"a secret of both servers, which sign alike";

/// Plays the script of a seed; against another release than ours nothing.
pub(super) async fn play(run: &Run, seed: u64, calls: usize) -> Result<Played> {
    if !run.release.speaks_our_http() {
        return Ok(Played::nothing());
    }
    let keys = Workspace::create("auth-key")?;
    let old = !seed.is_multiple_of(2);
    let mut flags = vec![BCRYPT.to_owned(), "--max-learners=2".to_owned()];
    if old {
        let key = keys.path().join("secret");
        std::fs::write(&key, SECRET)?;
        let key = key.display();
        flags.push(format!("--auth-token=jwt,sign-method=HS256,priv-key={key},ttl=2h"));
    } else {
        flags.push("--auth-token-ttl=7200".to_owned());
    }
    let mut stage = Stage::open_quiet("auth", run, &flags).await?;
    for step in script::script(seed, calls, run.release.dialect(), old) {
        stage.ask_as(&step.who, step.call).await;
        if stage.is_over() {
            break;
        }
    }
    let played = stage.close()?;
    keys.discard()?;
    Ok(played)
}
