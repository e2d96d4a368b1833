//! Members come and go while harm is done: added as learners and as voters, promoted, moved, removed, replaced, and
//! started again after they were removed.
//!
//! ```text
//!   look     the newest roster: who is in it and has never run is started, at once or some seconds later
//!   change   any member is asked; it is made, or refused, or nobody knows
//!   settle   whoever is a member runs, and nobody else; what was acknowledged is so
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use quorate::keyspace::members::Roster;
use quorate::keyspace::{Keyspace, KeyspaceError};
use quorate_core::api::ids::MemberId;
use quorate_core::api::pb::etcdserverpb::Member;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::fleet::End;
use super::nemesis::Nemesis;
use super::world::World;

/// There are never more members than this.
const MEMBERS_MAX: usize = 6;
/// With so few voters the next one is removed only now and then.
const VOTERS_MIN: usize = 3;
/// Once healed, everything is settled by then.
const SETTLED: Duration = Duration::from_secs(40);

/// What was acknowledged.
#[derive(Default)]
struct Made {
    added: BTreeSet<u64>,
    removed: BTreeSet<u64>,
    promoted: BTreeSet<u64>,
}

/// See the module.
pub struct Changes {
    world: Arc<World>,
    rng: StdRng,
    /// So many URLs were given away.
    urls: u64,
    /// Members that have never run, and when they are to.
    late: BTreeMap<u64, Instant>,
    made: Made,
}

impl Changes {
    pub fn new(world: &Arc<World>, seed: u64) -> Changes {
        Changes {
            world: Arc::clone(world),
            rng: StdRng::seed_from_u64(seed),
            urls: 0,
            late: BTreeMap::new(),
            made: Made::default(),
        }
    }

    /// Changes members until told to stop.
    pub async fn run(mut self, stop: watch::Receiver<bool>) -> Changes {
        while !*stop.borrow() && self.world.told().violations.is_empty() {
            let pause = Duration::from_millis(self.rng.random_range(200..2500));
            tokio::time::sleep(pause).await;
            self.look(false);
            self.change().await;
        }
        self
    }

    /// The members as whoever has applied most knows them.
    fn roster(&self) -> Arc<Roster> {
        let fleet = &self.world.fleet;
        let running = fleet.everyone().into_iter().filter_map(|id| fleet.member(id));
        let newest = running
            .filter(|member| !member.stands_still())
            .max_by_key(|member| member.keyspace.status().applied_index);
        newest.map(|member| member.keyspace.roster().borrow().clone()).unwrap_or_default()
    }

    /// Starts members that have never run.
    fn look(&mut self, at_once: bool) {
        let (roster, fleet) = (self.roster(), &self.world.fleet);
        let everyone = fleet.everyone();
        self.late.retain(|id, _| roster.members.iter().any(|member| member.id == *id));
        for id in roster.members.iter().map(|member| member.id) {
            if everyone.contains(&id) {
                continue;
            }
            let rng = &mut self.rng;
            let due = *self.late.entry(id).or_insert_with(|| {
                let late = if rng.random_bool(0.3) { rng.random_range(0..8000) } else { 0 };
                Instant::now() + Duration::from_millis(late)
            });
            if at_once || due <= Instant::now() {
                self.late.remove(&id);
                fleet.enlist(id);
                fleet.start(id, self.rng.random::<u64>() | 1);
                self.world.line(|| format!("member {id} starts for the first time"));
                self.world.net.count("new member started");
            }
        }
    }

    async fn change(&mut self) {
        let roster = self.roster();
        let (learners, voters): (Vec<&Member>, Vec<&Member>) =
            roster.members.iter().partition(|member| member.is_learner);
        let many = roster.members.len() >= MEMBERS_MAX;
        match self.rng.random_range(0..100) {
            0..35 if !many => {
                let is_learner = self.rng.random_bool(0.5);
                self.add(is_learner).await;
            }
            35..55 => {
                let one = learners.choose(&mut self.rng).or(voters.choose(&mut self.rng));
                if let Some(one) = one {
                    self.promote(one.id).await;
                }
            }
            55..75 => self.remove(&roster, voters.len()).await,
            75..85 => {
                self.remove(&roster, voters.len()).await;
                self.add(false).await;
            }
            85..90 => {
                if let Some(one) = roster.members.choose(&mut self.rng) {
                    self.move_away(one.id).await;
                }
            }
            _ => self.come_back(),
        }
    }

    /// Has any member answer, for a while; what it answered.
    async fn ask<T, F>(
        &mut self,
        what: &'static str,
        of: u64,
        call: impl FnOnce(Keyspace) -> F,
    ) -> Option<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, KeyspaceError>> + Send + 'static,
    {
        let cast = self.world.fleet.cast();
        let at = *cast.choose(&mut self.rng)?;
        let member = self.world.fleet.member(at)?;
        let mut task = member.spawn(call(member.keyspace.clone()));
        let patience = Duration::from_millis(self.rng.random_range(300..9000));
        let (told, answer) = match timeout(patience, &mut task).await {
            Ok(Ok(Ok(answer))) => (what, Some(answer)),
            Ok(Ok(Err(KeyspaceError::Members(_)))) => ("change refused", None),
            Ok(Ok(Err(_))) => ("change in doubt", None),
            Ok(Err(ended)) if ended.is_panic() => {
                self.world.violation(format!("a change asked of member {at} panicked"));
                return None;
            }
            Ok(Err(_)) => ("change in doubt", None),
            Err(_elapsed) => {
                if self.rng.random_bool(0.5) {
                    task.abort();
                }
                ("change in doubt", None)
            }
        };
        self.world.net.count(told);
        self.world.line(|| format!("{what} of {of:x} asked of {at}: {told}"));
        answer
    }

    async fn add(&mut self, is_learner: bool) {
        self.urls += 1;
        let urls = vec![format!("http://j{}:2380", self.urls)];
        let what = if is_learner { "learner added" } else { "voter added" };
        let add = |keyspace: Keyspace| async move { keyspace.member_add(&urls, is_learner).await };
        if let Some((member, _)) = self.ask(what, 0, add).await {
            self.made.added.insert(member.id);
        }
    }

    async fn promote(&mut self, id: u64) {
        let promote =
            |keyspace: Keyspace| async move { keyspace.member_promote(MemberId(id)).await };
        if self.ask("learner promoted", id, promote).await.is_some() {
            self.made.promoted.insert(id);
        }
    }

    async fn remove(&mut self, roster: &Roster, voters: usize) {
        let leads = |id: u64| {
            let member = self.world.fleet.member(id);
            member
                .is_some_and(|member| member.keyspace.leader_view().leader() == Some(MemberId(id)))
        };
        let leader = roster.members.iter().map(|member| member.id).find(|id| leads(*id));
        let any = roster.members.choose(&mut self.rng);
        let id = match leader {
            Some(leader) if self.rng.random_bool(0.4) => leader,
            Some(_) | None => match any {
                Some(any) => any.id,
                None => return,
            },
        };
        let votes = roster.members.iter().any(|member| member.id == id && !member.is_learner);
        if votes && voters <= VOTERS_MIN && !self.rng.random_bool(0.2) {
            return;
        }
        let what = if leader == Some(id) { "leader removed" } else { "member removed" };
        let remove = |keyspace: Keyspace| async move { keyspace.member_remove(MemberId(id)).await };
        if self.ask(what, id, remove).await.is_some() {
            self.made.removed.insert(id);
        }
    }

    async fn move_away(&mut self, id: u64) {
        self.urls += 1;
        let urls = vec![format!("http://j{}:2380", self.urls)];
        let update =
            |keyspace: Keyspace| async move { keyspace.member_update(MemberId(id), urls).await };
        drop(self.ask("member moved", id, update).await);
    }

    /// Who was removed is started again, with what it had.
    fn come_back(&mut self) {
        let fleet = &self.world.fleet;
        let down: Vec<u64> = fleet.retired().into_iter().filter(|id| fleet.is_down(*id)).collect();
        if let Some(id) = down.choose(&mut self.rng) {
            fleet.start(*id, self.rng.random::<u64>() | 1);
            self.world.line(|| format!("member {id} was removed and starts again"));
            self.world.net.count("removed member started again");
        }
    }

    /// With all harm over: whoever is a member runs, and nobody else.
    pub async fn settle(&mut self, nemesis: &mut Nemesis) {
        let until = Instant::now() + SETTLED;
        loop {
            self.look(true);
            nemesis.start_all();
            let Some(words) = self.unsettled() else { break };
            if Instant::now() > until {
                return self.world.violation(format!("{SETTLED:?} after the harm {words}"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.check();
    }

    /// What is not as it should be.
    fn unsettled(&self) -> Option<String> {
        let (roster, fleet) = (self.roster(), &self.world.fleet);
        let mut members: Vec<u64> = roster.members.iter().map(|member| member.id).collect();
        self.end_the_forgotten(&members);
        let mut cast = fleet.cast();
        members.sort_unstable();
        cast.sort_unstable();
        if members != cast {
            return Some(format!("the members are {members:x?}, and {cast:x?} are there"));
        }
        if let Some(down) = cast.iter().find(|id| fleet.member(**id).is_none()) {
            return Some(format!("member {down:x} does not run"));
        }
        let goes_on = fleet.retired().into_iter().find(|id| fleet.member(*id).is_some());
        goes_on.map(|id| format!("member {id:x} was removed and goes on"))
    }

    /// A member that was removed and knows nobody who is still one is told by nobody.
    fn end_the_forgotten(&self, members: &[u64]) {
        let fleet = &self.world.fleet;
        for id in fleet.everyone().into_iter().filter(|id| !members.contains(id)) {
            let Some(member) = fleet.member(id) else { continue };
            let facts = member.keyspace.raft_facts();
            let mut known =
                facts.voters.iter().chain(&facts.learners).map(|other| other.0).peekable();
            if known.peek().is_some() && !known.any(|other| members.contains(&other)) {
                fleet.end(id, End::Kill);
                fleet.retire(id);
            }
        }
    }

    /// What was acknowledged is so.
    fn check(&self) {
        let roster = self.roster();
        let find = |id: &u64| roster.members.iter().find(|member| member.id == *id);
        let gone = |id: &u64| roster.removed.contains(&MemberId(*id));
        for id in &self.made.added {
            if find(id).is_none() && !gone(id) {
                self.world.violation(format!("member {id:x} was added and is none"));
            }
        }
        for id in &self.made.promoted {
            if find(id).is_some_and(|member| member.is_learner) {
                self.world.violation(format!("member {id:x} was promoted and has no vote"));
            }
        }
        for id in &self.made.removed {
            if find(id).is_some() || !gone(id) {
                self.world.violation(format!("member {id:x} was removed and is one"));
            }
        }
    }
}
