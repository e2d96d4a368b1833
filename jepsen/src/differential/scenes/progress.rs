//! Progress that watchers are told by the clock.
//!
//! One write, then several intervals of silence: whatever the clocks of two servers do, each watcher that is to hear of
//! the new revision has heard it, and of no other. A client that ends its requests goes on hearing.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::sleep;

use super::{Played, Stage};
use crate::differential::call::Call;
use crate::differential::run::Run;
use crate::differential::streams::Heard;
use crate::pb::etcdserverpb::{DeleteRangeRequest, PutRequest, WatchCreateRequest};

const INTERVAL: Duration = Duration::from_millis(150);
const ROUNDS: i64 = 5;
const KEYS: [&[u8]; 3] = [b"a", b"b", b"c"];

fn put(rng: &mut StdRng) -> Call {
    let key = Bytes::from_static(KEYS[rng.random_range(0..KEYS.len())]);
    if rng.random_bool(0.3) {
        return Call::DeleteRange(DeleteRangeRequest { key, ..DeleteRangeRequest::default() });
    }
    Call::Put(PutRequest { key, value: Bytes::from_static(b"v"), ..PutRequest::default() })
}

fn watcher(rng: &mut StdRng, current: i64, future: bool) -> WatchCreateRequest {
    let filters = [vec![], vec![], vec![0], vec![1], vec![0, 1]];
    let ahead = if future { rng.random_range(1..=ROUNDS + 2) } else { 0 };
    let starts = [0, 0, 1, current, current + ahead];
    WatchCreateRequest {
        key: Bytes::from_static(KEYS[rng.random_range(0..KEYS.len())]),
        range_end: Bytes::from_static([b"".as_slice(), b"\0"][rng.random_range(0..2)]),
        start_revision: starts[rng.random_range(0..starts.len())],
        filters: filters[rng.random_range(0..filters.len())].clone(),
        progress_notify: rng.random_bool(0.8),
        prev_kv: rng.random_bool(0.3),
        ..WatchCreateRequest::default()
    }
}

pub(super) async fn play(run: &Run, mut rng: StdRng) -> Result<Played> {
    let flag = |name: &str| vec![format!("{name}={}ms", INTERVAL.as_millis())];
    let ours = flag("--watch-progress-notify-interval");
    let mut stage = Stage::open("progress", run, &ours, &flag(run.release.progress_flag())).await?;
    let mut current = 1;
    for _ in 0..3 {
        current = stage.ask(put(&mut rng)).await.revision().unwrap_or(current);
    }
    let future = run.release.keeps_future_watchers_silent();
    for _ in 0..8 {
        let create = watcher(&mut rng, current, future);
        stage.ask(Call::WatchCreate(0, create)).await;
    }
    let mut one = watcher(&mut rng, current, future);
    one.progress_notify = true;
    stage.ask(Call::WatchCreate(1, one)).await;
    quiet(&mut stage).await;
    for _ in 0..ROUNDS {
        stage.ask(put(&mut rng)).await;
        quiet(&mut stage).await;
        if !run.release.tells_progress_always() {
            stage.ask(Call::WatchProgress(rng.random_range(0..2))).await;
        }
        if !stage.findings.is_empty() {
            break;
        }
    }
    stage.ours.streams[1].half_close();
    stage.theirs.streams[1].half_close();
    stage.ask(put(&mut rng)).await;
    quiet(&mut stage).await;
    stage.close()
}

/// Long enough for every clock to have ticked.
async fn quiet(stage: &mut Stage<'_>) {
    sleep(3 * INTERVAL).await;
    stage.agree_on(0, Heard::with_progress_once).await;
    stage.agree_on(1, Heard::with_progress_once).await;
}
