//! A cluster under load whose members come and go: who is one now, what each change cost, and what is true in the end.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tonic::{Response, Status};

use super::Options;
use super::refusals::{self, Refusal, UNHEALTHY};
use super::watched::{Watched, watch};
use crate::client::Client;
use crate::cluster::census::{self, Claim, elected};
use crate::cluster::{Cluster, START_DEADLINE};
use crate::faults::agreement;
use crate::faults::machine::{Stalls, Watch};
use crate::member::panics_in;
use crate::pb::etcdserverpb::{
    Member, MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest,
    MemberUpdateRequest, MoveLeaderRequest,
};
use crate::traffic::prober::{Probes, probe};
use crate::traffic::{Arena, Crowd, Traffic, judge};
use crate::verdict::Verdict;

/// Nothing of this takes longer, or never ends.
const CALL_DEADLINE: Duration = Duration::from_secs(20);
/// A cluster that has just changed counts as unhealthy for five seconds.
const HEALTHY_DEADLINE: Duration = Duration::from_secs(25);
const LEADER_DEADLINE: Duration = Duration::from_secs(20);
/// A process that has not ended by then never will.
const END_DEADLINE: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_millis(100);
/// A change's consequences count as its own for so long.
const AFTERMATH: Duration = Duration::from_secs(2);
/// A machine that stood still for so long explains an election.
const STALL: Duration = Duration::from_millis(300);
/// What a server says at its end that does not fit the members there are.
pub(super) const NOT_LET_IN: &str = "error validating peerURLs";
const QUIET: Duration = Duration::from_secs(2);

/// What a change may cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) gap: Duration,
    pub(super) leader_gap: Duration,
    pub(super) exit: Duration,
}

/// One change, from when to when, and for how long it may keep everyone from writing.
#[derive(Debug)]
struct Change {
    what: String,
    from: Duration,
    to: Duration,
    gap_max: Duration,
}

/// See the module.
pub(super) struct Stage {
    pub(super) cluster: Cluster,
    pub(super) findings: Vec<String>,
    pub(super) limits: Limits,
    /// Seats whose members run and count.
    pub(super) members: Vec<usize>,
    /// Where the watch is open: this member stays.
    pub(super) watched: usize,
    seats: usize,
    rng: StdRng,
    launched: Instant,
    arena: Arena,
    changes: Vec<Change>,
    /// Elections where there should have been none, unless the machine stood still.
    elections: Vec<(Duration, Duration, String)>,
    traffic: Traffic,
    prober: JoinHandle<Probes>,
    machine: Watch,
    watch: JoinHandle<Watched>,
}

impl Stage {
    /// A cluster of the seats `first`, under load, with a watch open at the seat `watched`.
    pub(super) async fn begin(
        options: &Options,
        root: &Path,
        seats: usize,
        first: &[usize],
        watched: usize,
    ) -> Result<Stage> {
        let mut cluster = Cluster::lay_out(&options.server, root, seats, &options.flags)?;
        for nth in first {
            cluster.tell(*nth, first, "new");
            cluster.launch(*nth)?;
        }
        let launched = Instant::now();
        for nth in first {
            cluster.await_ready(*nth, START_DEADLINE)?;
        }
        let arena = Arena::new(cluster.endpoints().clone());
        let leases = if options.short { 0 } else { 2 };
        let crowd = Crowd { puts: 3, counters: 2, rewrites: 1, registers: 3, leases, watchers: 2 };
        let client = cluster.client(watched).await?;
        Ok(Stage {
            findings: Vec::new(),
            limits: options.limits(),
            members: first.to_vec(),
            watched,
            seats,
            launched,
            rng: StdRng::seed_from_u64(options.seed),
            changes: Vec::new(),
            elections: Vec::new(),
            watch: tokio::spawn(watch(client, arena.clone())),
            traffic: Traffic::start(&arena, options.seed, crowd),
            prober: tokio::spawn(probe(arena.clone())),
            machine: Watch::begin(root, arena.clone())?,
            arena,
            cluster,
        })
    }

    /// Since the load began.
    pub(super) fn now(&self) -> Duration {
        self.arena.now()
    }

    /// Since the last of the first members was launched: no connection of theirs is older.
    pub(super) fn age(&self) -> Duration {
        self.launched.elapsed()
    }

    /// Any of these.
    pub(super) fn any(&mut self, of: &[usize]) -> usize {
        of.choose(&mut self.rng).copied().unwrap_or(self.watched)
    }

    pub(super) fn chance(&mut self, odds: f64) -> bool {
        self.rng.random_bool(odds)
    }

    /// What began then is done now, and may have kept everyone from writing for so long.
    pub(super) fn done(&mut self, what: impl Into<String>, from: Duration, gap_max: Duration) {
        let (what, to) = (what.into(), self.now());
        println!("{:6.1} s {what}, {:.2?}", from.as_secs_f64(), to.saturating_sub(from));
        self.changes.push(Change { what, from, to, gap_max });
    }

    /// A claim, and whether it holds.
    pub(super) fn claim(&mut self, holds: bool, what: impl Into<String>) {
        if !holds {
            let what = what.into();
            println!("{:6.1} s FOUND {what}", self.now().as_secs_f64());
            self.findings.push(what);
        }
    }

    pub(super) async fn asked(&self) -> Result<Client> {
        self.cluster.client(self.watched).await
    }

    /// The members as the watched one lists them.
    pub(super) async fn listed(&self) -> Result<Vec<Member>> {
        let request = MemberListRequest { linearizable: true };
        let mut client = self.asked().await?;
        let listed = timeout(CALL_DEADLINE, client.cluster.member_list(request)).await??;
        Ok(listed.into_inner().members)
    }

    /// The id of whoever is reached at that seat.
    pub(super) async fn id(&self, nth: usize) -> Result<u64> {
        let url = self.cluster.spec(nth).peer_url();
        let listed = self.listed().await?;
        let member = listed.iter().find(|member| member.peer_ur_ls.contains(&url));
        Ok(member.with_context(|| format!("m{nth} is no member"))?.id)
    }

    /// MemberAdd of a seat.
    pub(super) async fn try_add(
        &self,
        nth: usize,
        is_learner: bool,
    ) -> Result<Result<Response<u64>, Status>> {
        let peer_ur_ls = vec![self.cluster.spec(nth).peer_url()];
        let request = MemberAddRequest { peer_ur_ls, is_learner };
        let mut client = self.asked().await?;
        let answer = timeout(CALL_DEADLINE, client.cluster.member_add(request)).await;
        let answer = answer.with_context(|| format!("MemberAdd of m{nth} hangs"))?;
        Ok(answer.map(|added| added.map(|added| added.member.map_or(0, |member| member.id))))
    }

    pub(super) async fn try_add_urls(&self, urls: &[&str]) -> Result<Result<Response<()>, Status>> {
        let peer_ur_ls = urls.iter().map(|url| (*url).to_owned()).collect();
        let request = MemberAddRequest { peer_ur_ls, is_learner: false };
        let mut client = self.asked().await?;
        let answer = timeout(CALL_DEADLINE, client.cluster.member_add(request)).await?;
        Ok(answer.map(|added| added.map(drop)))
    }

    /// MemberRemove, asked at a seat.
    pub(super) async fn try_remove(
        &self,
        id: u64,
        at: usize,
    ) -> Result<Result<Response<()>, Status>> {
        let mut client = self.cluster.client(at).await?;
        let removed = client.cluster.member_remove(MemberRemoveRequest { id });
        let answer = timeout(CALL_DEADLINE, removed).await;
        let answer = answer.with_context(|| format!("MemberRemove of {id:x} hangs"))?;
        Ok(answer.map(|removed| removed.map(drop)))
    }

    pub(super) async fn try_promote(&self, id: u64) -> Result<Result<Response<()>, Status>> {
        let mut client = self.asked().await?;
        let promoted = client.cluster.member_promote(MemberPromoteRequest { id });
        let answer = timeout(CALL_DEADLINE, promoted).await?;
        Ok(answer.map(|promoted| promoted.map(drop)))
    }

    pub(super) async fn try_update(
        &self,
        id: u64,
        url: String,
    ) -> Result<Result<Response<()>, Status>> {
        let mut client = self.asked().await?;
        let request = MemberUpdateRequest { id, peer_ur_ls: vec![url] };
        let answer = timeout(CALL_DEADLINE, client.cluster.member_update(request)).await?;
        Ok(answer.map(|updated| updated.map(drop)))
    }

    /// The answer was that refusal, and not another one.
    pub(super) fn refused<T>(
        &mut self,
        what: &str,
        answer: &Result<Response<T>, Status>,
        refusal: Refusal,
    ) {
        let told = refusals::words(answer);
        println!("{:6.1} s refused, {what}: {told}", self.now().as_secs_f64());
        self.claim(
            refusals::is(answer, refusal),
            format!("{what}: {told}, expected {:?}: {}", refusal.0, refusal.1),
        );
    }

    /// Adds a seat, as soon as the cluster counts as healthy; its id.
    pub(super) async fn add(&mut self, nth: usize, is_learner: bool) -> Result<u64> {
        let asked = Instant::now();
        loop {
            let from = self.now();
            let answer = self.try_add(nth, is_learner).await?;
            if refusals::is(&answer, UNHEALTHY) && asked.elapsed() < HEALTHY_DEADLINE {
                sleep(RETRY).await;
                continue;
            }
            let role = if is_learner { "learner" } else { "voter" };
            let id = answer.with_context(|| format!("adding m{nth} as a {role}"))?.into_inner();
            self.done(format!("m{nth} added as a {role}"), from, self.limits.gap);
            return Ok(id);
        }
    }

    /// Removes a seat's member by asking another or itself, as soon as the cluster counts as healthy; its id.
    pub(super) async fn remove(&mut self, nth: usize, at: usize, what: &str) -> Result<u64> {
        let id = self.id(nth).await?;
        let leads = self.leader().await? == nth;
        let gap_max = if leads { self.limits.leader_gap } else { self.limits.gap };
        let asked = Instant::now();
        loop {
            let from = self.now();
            let answer = self.try_remove(id, at).await?;
            if refusals::is(&answer, UNHEALTHY) && asked.elapsed() < HEALTHY_DEADLINE {
                sleep(RETRY).await;
                continue;
            }
            answer.with_context(|| format!("removing m{nth}"))?;
            self.members.retain(|member| *member != nth);
            self.done(format!("m{nth} removed, {what}, asked at m{at}"), from, gap_max);
            return Ok(id);
        }
    }

    /// Starts a member that was added, and waits until it serves.
    pub(super) async fn join(&mut self, nth: usize) -> Result<()> {
        self.tell_joining(nth);
        let from = self.now();
        self.cluster.launch(nth)?;
        self.cluster.await_ready(nth, START_DEADLINE)?;
        self.members.push(nth);
        self.done(format!("m{nth} started and ready"), from, self.limits.gap);
        Ok(())
    }

    /// Tells a seat that it joins the members there are.
    pub(super) fn tell_joining(&mut self, nth: usize) {
        let mut listed = self.members.clone();
        listed.push(nth);
        self.cluster.tell(nth, &listed, "existing");
    }

    /// Who leads, by its seat. Waits.
    pub(super) async fn leader(&self) -> Result<usize> {
        let endpoints: Vec<_> =
            self.members.iter().map(|nth| self.cluster.endpoint(*nth)).collect();
        let asked = Instant::now();
        while asked.elapsed() < LEADER_DEADLINE {
            if let Some(at) = census::leader(&endpoints, endpoints.len() / 2 + 1).await {
                return Ok(self.members[at]);
            }
            sleep(RETRY).await;
        }
        bail!("no leader of {:?} for {LEADER_DEADLINE:?}", self.members)
    }

    /// Has a seat's member lead. It may have no vote yet: then again.
    pub(super) async fn lead(&mut self, nth: usize) -> Result<()> {
        let asked = Instant::now();
        let target_id = self.id(nth).await?;
        loop {
            let leader = self.leader().await?;
            if leader == nth {
                return Ok(());
            }
            let from = self.now();
            let mut client = self.cluster.client(leader).await?;
            let moved = client.maintenance.move_leader(MoveLeaderRequest { target_id });
            match timeout(CALL_DEADLINE, moved).await? {
                Ok(_) => {
                    self.done(format!("m{nth} leads after m{leader}"), from, self.limits.leader_gap)
                }
                Err(status) => ensure!(
                    asked.elapsed() < LEADER_DEADLINE,
                    "m{nth} does not come to lead: {status}"
                ),
            }
            sleep(RETRY).await;
        }
    }

    /// The term, as the watched member knows it.
    async fn term(&self) -> Result<u64> {
        let asked = Instant::now();
        while asked.elapsed() < CALL_DEADLINE {
            if let Some(claim) = census::ask(&self.cluster.endpoint(self.watched)).await {
                return Ok(claim.term);
            }
            sleep(RETRY).await;
        }
        bail!("m{} tells no status", self.watched)
    }

    /// A member that was removed ends by itself, well, and soon.
    pub(super) fn ends(&mut self, nth: usize, what: &str) -> Result<()> {
        let begun = Instant::now();
        let status = self.cluster.await_end(nth, END_DEADLINE)?;
        let took = begun.elapsed();
        println!("{:6.1} s m{nth}, {what}, ended: {status}, after {took:.2?}", self.seconds());
        self.claim(status.code() == Some(0), format!("m{nth}, {what}, ended with {status}"));
        self.claim(took <= self.limits.exit, format!("m{nth}, {what}, ended after {took:.2?}"));
        Ok(())
    }

    /// A member that was removed is started again: it ends by itself, and nobody else notices.
    pub(super) async fn comes_back(&mut self, nth: usize, what: &str) -> Result<()> {
        let (from, before) = (self.now(), self.term().await?);
        self.cluster.launch(nth)?;
        self.ends(nth, what)?;
        sleep(QUIET).await;
        let after = self.term().await?;
        if after != before {
            let words = format!("m{nth}, {what}, came back: term {before} became {after}");
            self.elections.push((from, self.now(), words));
        }
        self.done(format!("m{nth} came back, {what}"), from, self.limits.gap);
        Ok(())
    }

    /// The member's directory is lost.
    pub(super) fn wipe(&self, nth: usize) -> Result<()> {
        Ok(std::fs::remove_dir_all(&self.cluster.spec(nth).data_dir)?)
    }

    fn seconds(&self) -> f64 {
        self.now().as_secs_f64()
    }

    /// Ends the load, and judges.
    pub(super) async fn end(mut self) -> Result<Verdict> {
        sleep(QUIET).await;
        let ended = self.now();
        self.arena.end();
        let told = self.traffic.finish(&self.arena).await?;
        let (probes, stalls) = (self.prober.await?, self.machine.end()?);
        let (watched, mut findings) = (self.watch.await?, self.findings);
        findings.extend(self.cluster.ended());
        let mut summary = judge::Summary::default();
        let client = self.cluster.client(self.watched).await?;
        judge::leases_gone(&client, &told).await?;
        match agreement::agreed(&self.cluster, &self.members, &mut findings).await {
            Ok(truth) => {
                watched.check(&truth, &mut findings);
                let (found, judged) = judge::judge_by(&truth, &told);
                findings.extend(found);
                summary = judged;
            }
            Err(error) => findings.push(format!("in the end: {error:#}")),
        }
        let elections = read_logs(&self.cluster, self.seats, &mut findings)?;
        let terms = agreement::one_leader_a_term(&elections, &mut findings);
        let stalled = gaps(&self.changes, &probes, &stalls, ended, &mut findings);
        for (from, to, words) in self.elections {
            if stalls.within(from, to - from) < STALL {
                findings.push(words);
            } else {
                println!("{words}, while the machine stood still");
            }
        }
        println!(
            "changes {}, elections in the logs {terms}, probes {} with {} retries, {} failed; {summary}",
            self.changes.len(),
            probes.written.len(),
            probes.retries,
            probes.failed.len()
        );
        Ok(match stalled {
            Some(stalled) if findings.is_empty() => Verdict::Unknown(stalled),
            Some(_) | None => Verdict::of(findings),
        })
    }
}

/// The longest time without a successful write at each change, and any write that a client gave up. A gap in which the
/// machine stood still proves nothing: it is returned.
fn gaps(
    changes: &[Change],
    probes: &Probes,
    stalls: &Stalls,
    ended: Duration,
    findings: &mut Vec<String>,
) -> Option<String> {
    let mut stalled = None;
    for (nth, change) in changes.iter().enumerate() {
        let next = changes.get(nth + 1).map_or(ended, |next| next.from);
        let to = (change.to + AFTERMATH).min(next).max(change.to);
        let (gap, since) = probes.longest_gap(change.from, to, to.max(next));
        let stood = stalls.within(since, gap);
        println!("{}: longest without a write {gap:.2?}", change.what);
        if gap > change.gap_max {
            let told = format!(
                "{gap:.2?} without a write from {since:.2?} on, the machine stood still for {stood:.2?} of it: {change:?}"
            );
            if gap - stood > change.gap_max { findings.push(told) } else { stalled = Some(told) }
        }
    }
    for (from, to) in &probes.failed {
        let stood = stalls.within(*from, *to - *from);
        if stood < (*to - *from) / 4 {
            findings
                .push(format!("a write of a client that tries every member failed at {from:.1?}"));
        }
    }
    stalled
}

/// The elections in the logs of all who ever ran; panics there are findings.
fn read_logs(cluster: &Cluster, seats: usize, findings: &mut Vec<String>) -> Result<Vec<Claim>> {
    let mut elections = Vec::new();
    for log in (0..seats).map(|nth| &cluster.spec(nth).log).filter(|log| log.exists()) {
        let panics = panics_in(log)?;
        // Whose directory was wiped is refused.
        let panics = panics.into_iter().filter(|line| !line.contains(NOT_LET_IN));
        findings.extend(panics.map(|line| format!("{}: {line}", log.display())));
        elections.extend(elected(&String::from_utf8_lossy(&std::fs::read(log)?)));
    }
    Ok(elections)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::puts::Sent;

    /// Writes that were acknowledged at these milliseconds, and a change from 1 s to 1.1 s.
    fn found(written: &[u64]) -> usize {
        let at = Duration::from_millis;
        let sent = |millis: &u64| Sent { returned: at(*millis), ..Sent::default() };
        let probes = Probes { written: written.iter().map(sent).collect(), ..Probes::default() };
        let change = Change { what: String::new(), from: at(1000), to: at(1100), gap_max: at(500) };
        let mut findings = Vec::new();
        let stalled = gaps(&[change], &probes, &Stalls::default(), at(9000), &mut findings);
        assert_eq!(stalled, None, "the machine never stood still");
        findings.len()
    }

    #[test]
    fn a_change_is_blamed_for_what_follows_it_closely() {
        assert_eq!(found(&[900, 1200, 1600, 2000, 2400, 2800, 3200, 9000]), 0);
        assert_eq!(found(&[900, 1500, 2000, 2400, 2800, 3200]), 1, "during the change");
        assert_eq!(found(&[900, 1200, 1600, 2000, 2400, 3000]), 1, "right after it");
        assert_eq!(found(&[100, 700, 1200, 1600, 2000, 2400, 2800, 3200]), 0, "before it");
    }
}
