//! Changes of members that one server alone can answer: all that is refused, learners that never start, and as the last
//! act a voter, which takes the quorum along.

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Played, Stage};
use crate::differential::auth::call::Who;
use crate::differential::call::{Call, OWN_MEMBER};
use crate::differential::members::{MemberCall, OWN_URL, nth_member};
use crate::differential::run::Run;
use crate::differential::upkeep::UpkeepCall;
use crate::pb::etcdserverpb::{MemberAddRequest, MemberUpdateRequest};

const CALLS: usize = 120;

/// Peer URLs of a member that may be.
const GOOD: [&[&str]; 9] = [
    &["http://:1"],
    &["http://127.0.0.1:1 "],
    &["http://127.0.0.1:1?a=b"],
    &["http://127.0.0.1:1"],
    &["http://127.0.0.1:2"],
    &["http://127.0.0.1:3", "http://127.0.0.1:4"],
    &["http://127.0.0.1:4", "http://127.0.0.1:3"],
    &["http://localhost:5"],
    &["http://member.invalid:6"],
];

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

fn add(urls: &[&str], is_learner: bool) -> Call {
    let peer_ur_ls = owned(urls);
    Call::Member(MemberCall::Add(MemberAddRequest { peer_ur_ls, is_learner }))
}

fn update(id: u64, urls: &[&str]) -> Call {
    Call::Member(MemberCall::Update(MemberUpdateRequest { id, peer_ur_ls: owned(urls) }))
}

/// A voter only with URLs that are refused.
fn call(rng: &mut StdRng) -> Call {
    let id = match rng.random_range(0..10) {
        0 => OWN_MEMBER,
        1 => 0,
        2 => u64::MAX,
        _ => nth_member(rng.random_range(2..6)),
    };
    match rng.random_range(0..100) {
        0..20 => add(BAD[rng.random_range(0..BAD.len())], rng.random_bool(0.5)),
        20..48 => add(GOOD[rng.random_range(0..GOOD.len())], true),
        48..68 => Call::Member(MemberCall::Remove(id)),
        68..82 => Call::Member(MemberCall::Promote(id)),
        // Once its own URL is another's to take, a member that takes it is this one.
        82..90 if id != OWN_MEMBER => update(id, GOOD[rng.random_range(0..GOOD.len())]),
        82..93 => update(id, &[OWN_URL]),
        93..96 => Call::MemberList(rng.random_bool(0.5)),
        96..98 => Call::Upkeep(UpkeepCall::MoveLeader(id)),
        _ => Call::Status,
    }
}

pub(in crate::differential) async fn play(run: &Run, seed: u64) -> Result<Played> {
    if !run.release.speaks_our_http() {
        return Ok(Played::nothing());
    }
    let mut rng = StdRng::seed_from_u64(seed);
    let flags = ["--max-learners=2".to_owned()];
    let mut stage = Stage::open_quiet("members", run, &flags).await?;
    for urls in BAD {
        stage.ask_as(&Who::Nobody, add(urls, rng.random_bool(0.5))).await;
    }
    for _ in 0..CALLS {
        stage.ask_as(&Who::Nobody, call(&mut rng)).await;
        if stage.is_over() {
            return stage.close();
        }
    }
    for nth in 2..8 {
        stage.ask_as(&Who::Nobody, Call::Member(MemberCall::Remove(nth_member(nth)))).await;
    }
    stage.ask_as(&Who::Nobody, Call::MemberList(true)).await;
    // The first of two: from here on nothing is decided.
    for last in [
        add(&["http://127.0.0.1:9"], false),
        Call::MemberList(false),
        add(&["http://127.0.0.1:10"], false),
        Call::Member(MemberCall::Remove(OWN_MEMBER)),
    ] {
        stage.ask_as(&Who::Nobody, last).await;
    }
    stage.close()
}
