//! Members that vote, append and commit as raft does, with processes that stand still and die: enough of it for leases.
//!
//! ```text
//!   append:  sent (seq) ── hop ──> arrives: Silence::heard ── queue ──> vote, log ── hop ──> acknowledged: seq
//!   confirm: everyone is sent an append with a later seq, and a quorum has acknowledged one
//! ```
//!
//! The lessors, what each member heard, and the asking are the real ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_core::api::batch::LeaseChange;
use quorate_core::api::ids::{LeaseId, LogId, MemberId, Term};
use quorate_core::api::pb::internal::LeaseExpiry;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::seat::Seat;
use crate::consensus::Silence;
use crate::keyspace::lease::{LeaseFact, Lessor, LessorOptions};

#[derive(Clone, Debug)]
pub(super) enum What {
    Blank,
    Grant { id: LeaseId, ttl: i64, sent: Instant },
    Rest { id: LeaseId, rest: i64 },
    End(LeaseExpiry),
    Voters(BTreeSet<MemberId>),
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) term: u64,
    pub(super) what: What,
}

pub(super) type Facts = Arc<Mutex<BTreeMap<LeaseId, LeaseFact>>>;

/// A member: what its disk holds, and its process if it runs.
pub(super) struct Node {
    pub(super) vote: u64,
    pub(super) log: Vec<Arc<Entry>>,
    pub(super) applied: usize,
    pub(super) facts: Facts,
    /// Processes there were.
    pub(super) life: u64,
    pub(super) still: bool,
    pub(super) cut: bool,
    pub(super) run: Option<Run>,
}

pub(super) struct Run {
    pub(super) silence: Arc<Silence>,
    pub(super) lessor: Lessor,
    pub(super) reign: Option<Reign>,
    candidacy: Option<(u64, BTreeSet<MemberId>)>,
    /// The term that this member leads, as it was published last.
    pub(super) view: Option<u64>,
    commit: usize,
    tasks: Vec<JoinHandle<()>>,
}

pub(super) struct Reign {
    pub(super) term: u64,
    /// Of each member, the newest append that it has acknowledged, and up to where its log is this one's.
    acked: BTreeMap<MemberId, (u64, usize)>,
}

pub(super) struct State {
    pub(super) random: StdRng,
    pub(super) nodes: BTreeMap<MemberId, Node>,
    seq: u64,
    /// From where to where nothing arrives.
    pub(super) cuts: BTreeSet<(MemberId, MemberId)>,
    /// How late and lossy the net is; healed at the end.
    pub(super) healed: bool,
    /// Until when each lease was promised, and by whom last.
    pub(super) promised: BTreeMap<LeaseId, (Instant, u64)>,
    pub(super) ended: BTreeMap<LeaseId, Instant>,
    pub(super) seen: Seen,
    pub(super) faults: Vec<String>,
}

/// What came to pass, so that a schedule in which nothing does is noticed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) reigns: u64,
    pub(super) renewals: u64,
    pub(super) told: u64,
    pub(super) rests: u64,
    pub(super) changes: u64,
    pub(super) ended: u64,
    /// By another leader than had promised last, sooner than by the full times.
    pub(super) soon: u64,
}

pub(super) struct World {
    pub(super) state: Mutex<State>,
    /// An election timeout; everything else is measured by it.
    pub(super) election: Duration,
}

impl Node {
    fn new() -> Node {
        Node {
            vote: 0,
            log: Vec::new(),
            applied: 0,
            facts: Facts::default(),
            life: 0,
            still: false,
            cut: false,
            run: None,
        }
    }

    /// The voters in force, and the term in which they came to be.
    pub(super) fn voters(&self) -> (u64, &BTreeSet<MemberId>) {
        let voters = self.log.iter().rev().find_map(|entry| match &entry.what {
            What::Voters(voters) => Some((entry.term, voters)),
            What::Blank | What::Grant { .. } | What::Rest { .. } | What::End(_) => None,
        });
        voters.expect("the first entry names them")
    }

    fn is_quorum(&self, has: impl Fn(MemberId) -> bool) -> bool {
        let (_, voters) = self.voters();
        2 * voters.iter().filter(|id| has(**id)).count() > voters.len()
    }

    fn last(&self) -> (u64, usize) {
        (self.log.last().map_or(0, |entry| entry.term), self.log.len())
    }

    pub(super) fn reign(&self) -> Option<&Reign> {
        self.run.as_ref()?.reign.as_ref()
    }

    /// A vote for a term, which ends what was of an earlier one.
    fn go_to(&mut self, term: u64) {
        self.vote = term;
        if let Some(run) = &mut self.run {
            run.reign.take_if(|reign| reign.term < term);
            run.candidacy.take_if(|candidacy| candidacy.0 < term);
        }
    }

    /// Takes a leader's log: what contradicts it goes, and what is more stays.
    fn take(&mut self, log: &[Arc<Entry>]) {
        let same = self.log.iter().zip(log).take_while(|(ours, theirs)| ours.term == theirs.term);
        let same = same.count();
        assert!(same >= self.applied.min(log.len()), "what was applied stays");
        if same < log.len() {
            self.log.truncate(same);
            self.log.extend_from_slice(&log[same..]);
        }
    }
}

impl World {
    /// Five members, of which three vote, or all.
    pub(super) fn new(seed: u64, election: Duration) -> Arc<World> {
        let voters = if seed.is_multiple_of(3) { 1..=5 } else { 1..=3 };
        let voters = What::Voters(voters.map(MemberId).collect());
        let voters = Arc::new(Entry { term: 0, what: voters });
        let node = |id| {
            let mut node = Node::new();
            node.log.push(Arc::clone(&voters));
            (MemberId(id), node)
        };
        let state = State {
            random: StdRng::seed_from_u64(seed),
            nodes: (1..=5).map(node).collect(),
            seq: 0,
            cuts: BTreeSet::new(),
            healed: false,
            promised: BTreeMap::new(),
            ended: BTreeMap::new(),
            seen: Seen::default(),
            faults: Vec::new(),
        };
        let world = Arc::new(World { state: Mutex::new(state), election });
        for id in 1..=5 {
            world.start(MemberId(id));
        }
        world
    }

    pub(super) fn draw(&self, range: std::ops::Range<u32>) -> u32 {
        self.state.lock().random.random_range(range)
    }

    /// Thousandths of an election timeout.
    pub(super) async fn pass(&self, range: std::ops::Range<u32>) {
        let thousandths = self.draw(range);
        sleep(self.election * thousandths / 1000).await;
    }

    /// Looks at a process while it is the same one; `None` when it is not.
    pub(super) fn at<R>(
        &self,
        (id, life): (MemberId, u64),
        look: impl FnOnce(&mut Node) -> R,
    ) -> Option<R> {
        let mut state = self.state.lock();
        let node = state.nodes.get_mut(&id).expect("it is one of the members");
        (node.life == life && node.run.is_some()).then(|| look(node))
    }

    /// Waits while the process stands still. `false` once it is no more.
    pub(super) async fn turn(&self, who: (MemberId, u64)) -> bool {
        loop {
            match self.at(who, |node| node.still) {
                None => return false,
                Some(false) => return true,
                Some(true) => self.pass(5..15).await,
            }
        }
    }

    /// A message on its way; whether it arrives.
    pub(super) async fn hop(&self, from: MemberId, to: MemberId) -> bool {
        let healed = self.state.lock().healed;
        match self.draw(0..100) {
            0..3 if !healed => return false,
            3..12 if !healed => self.pass(100..2000).await,
            12..30 => self.pass(5..100).await,
            _ => self.pass(1..5).await,
        }
        let state = self.state.lock();
        !state.nodes[&from].cut && !state.nodes[&to].cut && !state.cuts.contains(&(from, to))
    }

    pub(super) fn start(self: &Arc<World>, id: MemberId) {
        let mut state = self.state.lock();
        let node = state.nodes.get_mut(&id).expect("it is one of the members");
        node.life += 1;
        node.still = false;
        let seat = Arc::new(Seat::new(self, (id, node.life), Arc::clone(&node.facts)));
        let options = LessorOptions::for_election_timeout(self.election);
        let lessor = Lessor::new(seat.clone(), seat.clone(), options);
        node.run = Some(Run {
            silence: Arc::new(Silence::new()),
            lessor: lessor.clone(),
            reign: None,
            candidacy: None,
            view: None,
            commit: node.applied,
            tasks: vec![
                tokio::spawn(lessor.run(std::future::pending())),
                tokio::spawn(async move { seat.follow_leadership().await }),
            ],
        });
    }

    pub(super) fn kill(&self, id: MemberId) {
        let mut state = self.state.lock();
        let node = state.nodes.get_mut(&id).expect("it is one of the members");
        for task in node.run.take().into_iter().flat_map(|run| run.tasks) {
            task.abort();
        }
    }

    /// The leader of the newest term, if its process goes on.
    pub(super) fn leader(&self) -> Option<(MemberId, u64)> {
        let state = self.state.lock();
        let leaders = state.nodes.iter().filter(|(_, node)| !node.still && !node.cut);
        let leaders = leaders.filter_map(|(id, node)| Some((node.reign()?.term, *id, node.life)));
        leaders.max().map(|(_, id, life)| (id, life))
    }

    /// Asks for the votes of the next term.
    pub(super) fn campaign(self: &Arc<World>, id: MemberId) {
        let asked = {
            let mut state = self.state.lock();
            let node = state.nodes.get_mut(&id).expect("it is one of the members");
            if node.run.is_none() || node.still || !node.voters().1.contains(&id) {
                return;
            }
            node.go_to(node.vote + 1);
            let (term, last, life) = (node.vote, node.last(), node.life);
            let (_, voters) = node.voters();
            let voters: Vec<MemberId> = voters.iter().copied().collect();
            let run = node.run.as_mut().expect("it runs");
            run.candidacy = Some((term, BTreeSet::new()));
            voters.into_iter().map(move |to| (to, term, last, life))
        };
        for (to, term, last, life) in asked {
            let world = Arc::clone(self);
            tokio::spawn(async move {
                if to != id && !world.ask_vote(id, to, term, last).await {
                    return;
                }
                if world.turn((id, life)).await {
                    world.count_vote((id, life), to, term);
                }
            });
        }
    }

    async fn ask_vote(&self, from: MemberId, to: MemberId, term: u64, last: (u64, usize)) -> bool {
        let life = self.state.lock().nodes[&to].life;
        let arrives = self.hop(from, to).await && self.turn((to, life)).await;
        let vote = |node: &mut Node| {
            let granted = term > node.vote && last >= node.last();
            if term > node.vote {
                node.go_to(term);
            }
            granted
        };
        arrives && self.at((to, life), vote) == Some(true) && self.hop(to, from).await
    }

    fn count_vote(self: &Arc<World>, who: (MemberId, u64), from: MemberId, term: u64) {
        let wins = self.at(who, |node| {
            let run = node.run.as_mut()?;
            let votes = &mut run.candidacy.as_mut().filter(|(of, _)| *of == term)?.1;
            votes.insert(from);
            let votes = votes.clone();
            if !node.is_quorum(|id| votes.contains(&id)) {
                return None;
            }
            node.log.push(Arc::new(Entry { term, what: What::Blank }));
            let run = node.run.as_mut()?;
            run.candidacy = None;
            run.reign = Some(Reign { term, acked: BTreeMap::new() });
            Some(())
        });
        if wins.flatten().is_some() {
            self.state.lock().seen.reigns += 1;
            tokio::spawn(Arc::clone(self).reign_on(who, term));
        }
    }

    async fn reign_on(self: Arc<World>, who: (MemberId, u64), term: u64) {
        while self.turn(who).await && self.append_to_all(who) == Some(term) {
            self.pass(90..110).await;
        }
    }

    /// Sends an append to every other member; the term, if this one leads.
    pub(super) fn append_to_all(self: &Arc<World>, who: (MemberId, u64)) -> Option<u64> {
        let (id, _) = who;
        let term = self.at(who, |node| node.reign().map(|reign| reign.term)).flatten()?;
        self.commit(who);
        let (seq, others) = {
            let mut state = self.state.lock();
            state.seq += 1;
            let others = state.nodes.keys().copied().filter(|to| *to != id);
            (state.seq, others.collect::<Vec<_>>())
        };
        for to in others {
            tokio::spawn(Arc::clone(self).append(who, to, term, seq));
        }
        Some(term)
    }

    pub(super) fn seq(&self) -> u64 {
        self.state.lock().seq
    }

    async fn append(self: Arc<World>, who: (MemberId, u64), to: MemberId, term: u64, seq: u64) {
        let sent = self.at(who, |node| {
            let commit = node.run.as_ref().map_or(0, |run| run.commit);
            (node.log.clone(), commit)
        });
        let Some((log, commit)) = sent else { return };
        let target = (to, self.state.lock().nodes[&to].life);
        if !self.hop(who.0, to).await || !self.turn(target).await {
            return;
        }
        self.at(target, |node| {
            if let Some(run) = &node.run {
                run.silence.heard(Term(term));
            }
        });
        match self.draw(0..10) {
            0 => self.pass(0..300).await,
            _ => self.pass(0..3).await,
        }
        if !self.turn(target).await {
            return;
        }
        let taken = self.at(target, |node| {
            if term < node.vote {
                return node.vote;
            }
            node.go_to(term);
            node.take(&log);
            if let Some(run) = &mut node.run {
                run.candidacy = None;
                run.commit = run.commit.max(commit);
            }
            term
        });
        self.apply(target);
        let Some(vote) = taken else { return };
        if !self.hop(to, who.0).await || !self.turn(who).await {
            return;
        }
        self.at(who, |node| {
            if vote > node.vote {
                node.go_to(vote);
            }
            let reign = node.run.as_mut().and_then(|run| run.reign.as_mut());
            if let Some(reign) = reign.filter(|reign| reign.term == term && vote == term) {
                let acked = reign.acked.entry(to).or_default();
                *acked = (acked.0.max(seq), acked.1.max(log.len()));
            }
        });
        self.commit(who);
    }

    /// Whether a quorum has acknowledged an append that was sent after `seq`, while this member led `term`.
    pub(super) fn is_acked(&self, who: (MemberId, u64), term: u64, seq: u64) -> Option<bool> {
        let acked = |node: &mut Node| {
            let reign = node.reign().filter(|reign| reign.term == term)?;
            let has = |id| id == who.0 || reign.acked.get(&id).is_some_and(|acked| acked.0 > seq);
            Some(node.is_quorum(has))
        };
        self.at(who, acked).flatten()
    }

    /// Up to where a quorum's logs are this leader's, if that is of its own term.
    fn commit(&self, who: (MemberId, u64)) {
        self.at(who, |node| {
            let (term, matched) = match node.reign() {
                None => return,
                Some(reign) => {
                    let matched = |id| if id == who.0 { node.log.len() } else { reign.matched(id) };
                    let held = |len: &usize| node.is_quorum(|id| matched(id) >= *len);
                    (reign.term, (1..=node.log.len()).rev().find(held).unwrap_or(0))
                }
            };
            if matched > 0
                && node.log[matched - 1].term == term
                && let Some(run) = &mut node.run
            {
                run.commit = run.commit.max(matched);
            }
        });
        self.apply(who);
    }

    fn apply(&self, who: (MemberId, u64)) {
        loop {
            let next = self.at(who, |node| {
                let commit = node.run.as_ref()?.commit;
                if node.applied >= commit.min(node.log.len()) {
                    return None;
                }
                node.applied += 1;
                let entry = Arc::clone(&node.log[node.applied - 1]);
                Some((entry, node.applied as u64, Arc::clone(&node.facts)))
            });
            let Some((entry, index, facts)) = next.flatten() else { return };
            let changes = self.change(&entry, &facts);
            let lessor = self.at(who, |node| node.run.as_ref().map(|run| run.lessor.clone()));
            if let Some(lessor) = lessor.flatten() {
                lessor.applied(LogId::new(entry.term, index), &changes);
            }
        }
    }

    fn change(&self, entry: &Entry, facts: &Facts) -> Vec<LeaseChange> {
        let mut facts = facts.lock();
        match &entry.what {
            What::Blank | What::Voters(_) => Vec::new(),
            What::Grant { id, ttl, sent } => {
                facts.insert(*id, LeaseFact { id: *id, granted_ttl: *ttl, remaining_ttl: 0 });
                self.promise(*id, *sent, *ttl, entry.term);
                vec![LeaseChange::Granted { id: *id, ttl: *ttl }]
            }
            What::Rest { id, rest } => {
                let Some(fact) = facts.get_mut(id) else { return Vec::new() };
                fact.remaining_ttl = *rest;
                vec![LeaseChange::Checkpointed { id: *id, remaining_ttl: *rest }]
            }
            What::End(expiry) => {
                // As the state machine does: an expiry of another term is refused.
                let of_term = expiry.lease_ids.iter().filter(|_| expiry.term == entry.term);
                let ended = of_term.map(|id| LeaseId(*id)).filter(|id| facts.remove(id).is_some());
                let ended: Vec<_> = ended.collect();
                ended.iter().for_each(|id| self.end(*id, expiry.term));
                ended.into_iter().map(|id| LeaseChange::Ended { id }).collect()
            }
        }
    }

    /// A holder was told `ttl` seconds, which count from `at` for it.
    pub(super) fn promise(&self, id: LeaseId, at: Instant, ttl: i64, term: u64) {
        let mut state = self.state.lock();
        let until = at + Duration::from_secs(ttl.unsigned_abs());
        if let Some(ended) = state.ended.get(&id).copied().filter(|ended| *ended < until) {
            let late = until - ended;
            // A grant is applied by some members after others have seen the lease end.
            if ended <= at {
                state.faults.push(format!("{id} is promised for {late:?} after its end"));
            }
            return;
        }
        let promised = state.promised.entry(id).or_insert((until, term));
        if promised.0 < until {
            *promised = (until, term);
        }
    }

    fn end(&self, id: LeaseId, term: u64) {
        let (now, mut state) = (Instant::now(), self.state.lock());
        if state.ended.contains_key(&id) {
            return;
        }
        state.ended.insert(id, now);
        state.seen.ended += 1;
        let (until, promised_in) = state.promised[&id];
        if now < until {
            let early = until - now;
            state.faults.push(format!(
                "{id}, promised in term {promised_in}, ended {early:?} early in term {term}"
            ));
        } else if term > promised_in && now - until < self.election * 3 / 4 {
            state.seen.soon += 1;
        }
    }
}

impl Reign {
    fn matched(&self, id: MemberId) -> usize {
        self.acked.get(&id).map_or(0, |acked| acked.1)
    }
}
