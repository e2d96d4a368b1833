//! Three members of each: what is refused because a member is down or was never started, asked of every member.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep};

use super::Played;
use crate::differential::answer::Answer;
use crate::differential::call::{Call, OWN_MEMBER};
use crate::differential::client::Client;
use crate::differential::finding::Finding;
use crate::differential::members::{MemberCall, Roll, nth_member};
use crate::differential::run::{Kinds, Run, kind_of};
use crate::member::{Member, MemberSpec, Workspace, panics_in};
use crate::pb::etcdserverpb::{MemberAddRequest, MemberListRequest, MemberUpdateRequest};

const MEMBERS: usize = 3;
/// etcd counts a member as healthy that has been connected for 5 s.
const HEALTHY: Duration = Duration::from_secs(7);
/// A killed member's connections are gone at once, and a leader that was killed is replaced within a few seconds.
const NOTICED: Duration = Duration::from_secs(5);
const NEXT_SECOND: Duration = Duration::from_millis(1100);
const START: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(30);

/// One cluster of three processes.
struct Cluster {
    specs: Vec<MemberSpec>,
    members: Vec<Option<Member>>,
    clients: Vec<Client>,
    roll: Roll,
}

impl Cluster {
    async fn start(binary: &Path, root: &Path, name: &str) -> Result<Self> {
        // Members are compared by name too.
        let specs = MemberSpec::several(binary, &root.join(name), "m", MEMBERS)?;
        let launched = specs.clone();
        let members = tokio::task::spawn_blocking(move || -> Result<Vec<Member>> {
            let launched: Result<Vec<Member>> = launched.iter().map(MemberSpec::launch).collect();
            let mut members = launched?;
            for member in &mut members {
                member.await_ready(START)?;
            }
            Ok(members)
        })
        .await??;
        let mut clients = Vec::new();
        for spec in &specs {
            clients.push(Client::connect(&spec.endpoint()).await?);
        }
        let list = MemberListRequest { linearizable: true };
        let mut list = clients[0].cluster.clone().member_list(list).await?.into_inner().members;
        list.sort_by(|a, b| a.name.cmp(&b.name));
        let roll = Roll::new(list.iter().map(|m| m.id).collect(), specs[0].peer_url());
        let members = members.into_iter().map(Some).collect();
        Ok(Self { specs, members, clients, roll })
    }

    async fn ask(&mut self, member: usize, call: Call) -> Answer {
        let client = self.clients[member].clone();
        let asked = async {
            match call {
                Call::Member(call) => self.roll.make(&client, call).await,
                other => Answer::Silent(format!("no such call: {other:?}")),
            }
        };
        let answered = tokio::time::timeout(ANSWER, asked).await;
        answered.unwrap_or_else(|_| Answer::Silent(format!("no answer within {ANSWER:?}")))
    }

    fn kill(&mut self, member: usize) -> Result<()> {
        self.members[member].take().context("it is killed once")?.kill()?;
        Ok(())
    }
}

struct Play {
    ours: Cluster,
    theirs: Cluster,
    asked: usize,
    kinds: Kinds,
    findings: Vec<Finding>,
}

impl Play {
    async fn ask(&mut self, member: usize, call: Call) {
        self.asked += 1;
        let (ours, theirs) = tokio::join!(
            self.ours.ask(member, call.clone()),
            self.theirs.ask(member, call.clone())
        );
        *self.kinds.entry(kind_of(&theirs)).or_default() += 1;
        if !ours.agrees_with(&theirs, Duration::ZERO) {
            let at = Some(format!("    scene cluster, member {}", member + 1));
            self.findings.push(Finding::answers(self.asked, &call, &ours, &theirs, at));
        }
    }

    async fn ask_each(&mut self, members: &[usize], calls: &[Call]) {
        for call in calls {
            for member in members {
                self.ask(*member, call.clone()).await;
            }
        }
    }
}

fn add(url: &str, is_learner: bool) -> Call {
    let peer_ur_ls = vec![url.to_owned()];
    Call::Member(MemberCall::Add(MemberAddRequest { peer_ur_ls, is_learner }))
}

fn remove(nth: u64) -> Call {
    Call::Member(MemberCall::Remove(nth_member(nth)))
}

fn promote(nth: u64) -> Call {
    Call::Member(MemberCall::Promote(nth_member(nth)))
}

fn update(nth: u64, url: &str) -> Call {
    let peer_ur_ls = vec![url.to_owned()];
    let id = if nth == 0 { 7 } else { nth_member(nth) };
    Call::Member(MemberCall::Update(MemberUpdateRequest { id, peer_ur_ls }))
}

/// What every member refuses, whatever the others are at.
fn refused() -> Vec<Call> {
    vec![
        add("foo", false),
        update(0, "http://127.0.0.1:9"),
        update(2, crate::differential::members::OWN_URL),
        promote(2),
        promote(9),
        remove(9),
    ]
}

pub(in crate::differential) async fn play(run: &Run) -> Result<Played> {
    if !run.release.speaks_our_http() {
        return Ok(Played::nothing());
    }
    let workspace = Workspace::create("cluster")?;
    let (ours, theirs) = tokio::try_join!(
        Cluster::start(&run.ours, workspace.path(), "ours"),
        Cluster::start(&run.etcd, workspace.path(), "etcd"),
    )?;
    let mut play = Play { ours, theirs, asked: 0, kinds: Kinds::new(), findings: Vec::new() };
    let begun = Instant::now();
    play.ask_each(&[0, 1, 2], &refused()).await;
    sleep(HEALTHY.saturating_sub(begun.elapsed())).await;
    play.ours.kill(2)?;
    play.theirs.kill(2)?;
    sleep(NOTICED).await;
    two_of_three(&mut play).await;
    sleep(HEALTHY).await;
    two_alone(&mut play).await;
    let Play { ours, theirs, asked, kinds, mut findings } = play;
    let logs: Vec<_> = ours.specs.iter().map(|spec| spec.log.clone()).collect();
    drop((ours, theirs));
    for log in logs {
        for line in panics_in(&log)? {
            findings.push(Finding::fault(0, format!("scene cluster: panic: {line}")));
        }
    }
    if findings.is_empty() {
        workspace.discard()?;
    }
    Ok(Played { calls: asked, findings, kinds, ..Played::nothing() })
}

/// The third is down: nothing may cost a vote, but it may go.
async fn two_of_three(play: &mut Play) {
    play.ask_each(&[0, 1], &refused()).await;
    let calls = [
        add("http://127.0.0.1:1", false),
        add("http://127.0.0.1:1", true),
        remove(1),
        remove(2),
        Call::Member(MemberCall::Remove(OWN_MEMBER)),
    ];
    play.ask_each(&[0, 1], &calls).await;
    play.ask(0, remove(3)).await;
    play.ask_each(&[0, 1], &[remove(3), promote(3), update(3, "http://127.0.0.1:9")]).await;
}

/// Two are left, and one that never starts comes and goes.
async fn two_alone(play: &mut Play) {
    play.ask(0, add("http://127.0.0.1:1", true)).await;
    // An id is made of URLs and the second.
    sleep(NEXT_SECOND).await;
    play.ask_each(&[0, 1], &[add("http://127.0.0.1:2", true), add("http://127.0.0.1:1", true)])
        .await;
    play.ask_each(&[0, 1], &[promote(4), update(4, "http://127.0.0.1:3")]).await;
    play.ask(1, remove(4)).await;
    play.ask(0, add("http://127.0.0.1:1", false)).await;
    let calls = [add("http://127.0.0.1:2", false), remove(1), remove(2), promote(5)];
    play.ask_each(&[0, 1], &calls).await;
    play.ask(1, remove(5)).await;
    play.ask_each(&[0, 1], &[remove(5), promote(1)]).await;
}
