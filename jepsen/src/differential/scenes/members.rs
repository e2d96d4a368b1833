//! Changes of members that one server alone can answer: all that is refused, learners that never start, and as the last
//! act a voter, which takes the quorum along.

use std::time::Duration;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use super::{Played, Stage};
use crate::differential::auth::call::Who;
use crate::differential::call::{Call, OWN_MEMBER};
use crate::differential::members::{MemberCall, OWN_URL, nth_member};
use crate::differential::run::Run;
use crate::differential::upkeep::UpkeepCall;
use crate::pb::etcdserverpb::{MemberAddRequest, MemberUpdateRequest};

const CALLS: usize = 120;
const NEXT_SECOND: Duration = Duration::from_millis(1100);

/// Peer URLs of a member that may be: an id is made of them and of the second, so that none are given twice in one.
fn good(nth: usize) -> Vec<String> {
    let port = 100 + nth;
    match nth % 7 {
        0 => vec![format!("http://127.0.0.1:{port} ")],
        1 => vec![format!("http://127.0.0.1:{port}?a=b")],
        2 => vec![format!("http://:{port}")],
        3 => vec![format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{}", port + 5000)],
        4 => vec![format!("http://127.0.0.1:{}", port + 5000), format!("http://127.0.0.1:{port}")],
        5 => vec![format!("http://member.invalid:{port}")],
        _ => vec![format!("http://localhost:{port}")],
    }
}

/// Peer URLs that some check refuses, of their form or because they are taken.
const BAD: [&[&str]; 15] = [
    &[],
    &[""],
    &["foo"],
    &["127.0.0.1:1"],
    &["ftp://127.0.0.1:1"],
    &["http://127.0.0.1"],
    &["http://127.0.0.1:1/path"],
    &["http://127.0.0.1:1/"],
    &["http://"],
    &["http://127.0.0.1:x"],
    &["://127.0.0.1:1"],
    &["http://127.0.0.1:7", "foo"],
    &["%zz"],
    &[OWN_URL],
    &["http://127.0.0.1:8", OWN_URL],
];

fn owned(urls: &[&str]) -> Vec<String> {
    urls.iter().map(|url| (*url).to_owned()).collect()
}

fn add(peer_ur_ls: Vec<String>, is_learner: bool) -> Call {
    Call::Member(MemberCall::Add(MemberAddRequest { peer_ur_ls, is_learner }))
}

fn update(id: u64, peer_ur_ls: Vec<String>) -> Call {
    Call::Member(MemberCall::Update(MemberUpdateRequest { id, peer_ur_ls }))
}

/// What is drawn from, and how many members have been asked for.
struct Draw {
    rng: StdRng,
    named: usize,
}

impl Draw {
    fn fresh(&mut self) -> Vec<String> {
        self.named += 1;
        good(self.named)
    }

    /// A voter only with URLs that are refused.
    fn call(&mut self) -> Call {
        let id = match self.rng.random_range(0..10) {
            0 => OWN_MEMBER,
            1 => 0,
            2 => u64::MAX,
            _ => nth_member(self.rng.random_range(2..6)),
        };
        match self.rng.random_range(0..100) {
            0..20 => self.bad(),
            20..48 => add(self.fresh(), true),
            48..68 => Call::Member(MemberCall::Remove(id)),
            68..82 => Call::Member(MemberCall::Promote(id)),
            // Once its own URL is another's to take, a member that takes it is this one.
            82..90 if id != OWN_MEMBER => update(id, self.fresh()),
            82..93 => update(id, owned(&[OWN_URL])),
            93..96 => Call::MemberList(self.rng.random_bool(0.5)),
            96..98 => Call::Upkeep(UpkeepCall::MoveLeader(id)),
            _ => Call::Status,
        }
    }

    fn bad(&mut self) -> Call {
        let urls = BAD[self.rng.random_range(0..BAD.len())];
        add(owned(urls), self.rng.random_bool(0.5))
    }
}

pub(in crate::differential) async fn play(run: &Run, seed: u64) -> Result<Played> {
    if !run.release.speaks_our_http() {
        return Ok(Played::nothing());
    }
    let mut draw = Draw { rng: StdRng::seed_from_u64(seed), named: 0 };
    let flags = ["--max-learners=2".to_owned()];
    let mut stage = Stage::open_quiet("members", run, &flags).await?;
    for urls in BAD {
        stage.ask_as(&Who::Nobody, add(owned(urls), draw.rng.random_bool(0.5))).await;
    }
    for _ in 0..CALLS {
        stage.ask_as(&Who::Nobody, draw.call()).await;
        if stage.is_over() {
            return stage.close();
        }
    }
    for nth in 2..8 {
        stage.ask_as(&Who::Nobody, Call::Member(MemberCall::Remove(nth_member(nth)))).await;
    }
    // The same URLs again, in another second.
    stage.ask_as(&Who::Nobody, add(owned(&["http://127.0.0.1:1"]), true)).await;
    sleep(NEXT_SECOND).await;
    for urls in [&["http://127.0.0.1:1"][..], &["http://127.0.0.1:2", "http://127.0.0.1:1"]] {
        stage.ask_as(&Who::Nobody, add(owned(urls), true)).await;
        stage.ask_as(&Who::Nobody, add(owned(urls), false)).await;
    }
    stage.ask_as(&Who::Nobody, Call::MemberList(true)).await;
    // The first of two: from here on nothing is decided.
    for last in [
        add(owned(&["http://127.0.0.1:9"]), false),
        Call::MemberList(false),
        add(owned(&["http://127.0.0.1:10"]), false),
        Call::Member(MemberCall::Remove(OWN_MEMBER)),
    ] {
        stage.ask_as(&Who::Nobody, last).await;
    }
    stage.close()
}
