//! What a member's lessor sees of the group, and who tells it: as the keyspace does it, with every step late.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use quorate_core::api::ids::{LeaseId, MemberId, Term};
use quorate_core::api::pb::etcdserverpb::LeaseCheckpointRequest;
use quorate_core::api::pb::internal::keyspace_request::Ask;
use quorate_core::api::pb::internal::keyspace_response::Answer;
use quorate_core::api::pb::internal::{Blank, LeaseExpiry};
use tokio::time::{Instant, timeout};

use super::world::{Entry, Facts, Run, What, World};
use crate::keyspace::lease::silence::{Witnesses, last_promise, tell};
use crate::keyspace::lease::{
    Leadership, LeaseFact, LeaseFacts, Lessor, NotLeader, ProposalFailed,
};

/// One process of one member.
#[derive(Clone)]
pub(super) struct Seat {
    world: Weak<World>,
    who: (MemberId, u64),
    facts: Facts,
}

impl Seat {
    pub(super) fn new(world: &Arc<World>, who: (MemberId, u64), facts: Facts) -> Seat {
        Seat { world: Arc::downgrade(world), who, facts }
    }

    fn run<R>(&self, look: impl FnOnce(&mut Run) -> R) -> Option<R> {
        let world = self.world.upgrade()?;
        world.at(self.who, |node| node.run.as_mut().map(look)).flatten()
    }

    /// Tells what was heard, then what is published, then the lessor; each a while after the one before.
    pub(super) async fn follow_leadership(&self) {
        let mut asking: Option<tokio::task::JoinHandle<()>> = None;
        while let Some(world) = self.world.upgrade() {
            world.pass(10..100).await;
            if !world.turn(self.who).await {
                break;
            }
            let look = |run: &mut Run| {
                let term = run.reign.as_ref().map(|reign| reign.term);
                if let Some(term) = term.filter(|_| term != run.view) {
                    run.silence.leads(Term(term));
                }
                (term, run.view, run.lessor.clone())
            };
            let Some((term, view, lessor)) = self.run(look) else { break };
            // It was out of touch for a moment, or nothing has changed and the others are asked once more.
            let (is_blip, is_again) = (world.draw(0..400) == 0, world.draw(0..150) == 0);
            let is_healed = world.state.lock().healed;
            if term == view && (is_healed || !(is_blip || is_again)) {
                continue;
            }
            match world.draw(0..10) {
                0 => world.pass(0..1500).await,
                _ => world.pass(0..10).await,
            }
            if !world.turn(self.who).await || self.run(|run| run.view = term).is_none() {
                break;
            }
            world.pass(0..10).await;
            if !world.turn(self.who).await {
                break;
            }
            asking.inspect(|asking| asking.abort());
            if is_blip {
                lessor.leads(None);
            }
            lessor.leads(term.map(Term));
            let seat = self.clone();
            asking = term.map(|term| tokio::spawn(async move { seat.ask(&lessor, term).await }));
        }
        asking.inspect(|asking| asking.abort());
    }

    async fn ask(&self, lessor: &Lessor, term: u64) {
        if let Some(at) = last_promise(self, self.who.0, Term(term)).await
            && let Some(world) = self.world.upgrade()
            && world.turn(self.who).await
        {
            world.state.lock().seen.told += 1;
            lessor.last_heard(Term(term), at);
        }
    }

    async fn confirm(self, term: Term) -> Result<(), NotLeader> {
        let world = self.world.upgrade().ok_or(NotLeader)?;
        if !world.turn(self.who).await {
            return Err(NotLeader);
        }
        // The round is the group's; whose term it was is seen after it.
        let seq = world.seq();
        let round = world.append_to_all(self.who).ok_or(NotLeader)?;
        let index = world.at(self.who, |node| node.log.len()).ok_or(NotLeader)?;
        let acked = async {
            while !world.is_acked(self.who, round, seq).ok_or(NotLeader)? {
                world.pass(1..10).await;
                world.turn(self.who).await;
            }
            while world.at(self.who, |node| node.applied < index).ok_or(NotLeader)? {
                world.pass(1..10).await;
            }
            Ok(())
        };
        timeout(world.election, acked).await.unwrap_or(Err(NotLeader))?;
        if world.draw(0..3) == 0 {
            world.pass(0..600).await;
        }
        world.turn(self.who).await;
        match self.run(|run| run.view) {
            Some(Some(view)) if view == term.0 => Ok(()),
            Some(_) | None => Err(NotLeader),
        }
    }

    /// Appends in this term, and waits until it is applied.
    async fn propose(self, term: Option<u64>, what: Vec<What>) -> Result<(), ProposalFailed> {
        let failed = || ProposalFailed("the term is over".to_owned());
        let world = self.world.upgrade().ok_or_else(failed)?;
        let appended = world.at(self.who, |node| {
            let led = node.reign()?.term;
            if term.is_some_and(|term| term != led) {
                return None;
            }
            node.log.extend(what.into_iter().map(|what| Arc::new(Entry { term: led, what })));
            Some((led, node.log.len()))
        });
        let (led, index) = appended.flatten().ok_or_else(failed)?;
        world.append_to_all(self.who);
        let applied = async {
            loop {
                let state = world.at(self.who, |node| {
                    (node.reign().map(|reign| reign.term), node.applied >= index)
                });
                match state {
                    Some((Some(term), applied)) if term == led => {
                        if applied {
                            return Ok(());
                        }
                    }
                    Some(_) | None => return Err(failed()),
                }
                world.pass(1..10).await;
                world.turn(self.who).await;
            }
        };
        timeout(7 * world.election, applied).await.unwrap_or_else(|_elapsed| Err(failed()))
    }
}

impl LeaseFacts for Seat {
    fn leases(&self) -> Vec<LeaseFact> {
        self.facts.lock().values().copied().collect()
    }

    fn keys(&self, _id: LeaseId) -> Vec<Bytes> {
        Vec::new()
    }
}

impl Leadership for Seat {
    fn confirm(&self, term: Term) -> BoxFuture<'static, Result<(), NotLeader>> {
        self.clone().confirm(term).boxed()
    }

    fn propose_expiry(
        &self,
        expiry: LeaseExpiry,
    ) -> BoxFuture<'static, Result<(), ProposalFailed>> {
        self.clone().propose(Some(expiry.term), vec![What::End(expiry)]).boxed()
    }

    fn propose_checkpoint(
        &self,
        checkpoint: LeaseCheckpointRequest,
    ) -> BoxFuture<'static, Result<(), ProposalFailed>> {
        let rests = checkpoint.checkpoints.into_iter();
        let rests = rests.map(|it| What::Rest { id: LeaseId(it.id), rest: it.remaining_ttl });
        let rests: Vec<_> = rests.collect();
        if let Some(world) = self.world.upgrade() {
            world.state.lock().seen.rests += 1;
        }
        self.clone().propose(None, rests).boxed()
    }
}

impl Witnesses for Seat {
    fn heard_before(&self, term: Term) -> Option<Instant> {
        let world = self.world.upgrade()?;
        let heard = world.at(self.who, |node| {
            let vote = Term(node.vote);
            node.run.as_ref().and_then(|run| run.silence.told(vote, term))
        });
        heard.flatten()
    }

    fn voters_before(&self, term: Term) -> Option<Vec<BTreeSet<MemberId>>> {
        let voters = self.world.upgrade()?.at(self.who, |node| {
            let (of, voters) = node.voters();
            (of < term.0).then(|| vec![voters.clone()])
        });
        voters.flatten()
    }

    async fn ask(&self, to: MemberId, ask: Ask) -> Answer {
        let failed = Answer::Failed(Blank {});
        let (Ask::HeardBefore(term), Some(world)) = (ask, self.world.upgrade()) else {
            return failed;
        };
        let (facts, life) = {
            let state = world.state.lock();
            let node = &state.nodes[&to];
            (Arc::clone(&node.facts), node.life)
        };
        let other = Seat::new(&world, (to, life), facts);
        if !world.hop(self.who.0, to).await || !world.turn(other.who).await {
            world.pass(500..1000).await;
            return failed;
        }
        let answer = tell(other.heard_before(Term(term)));
        let arrives = world.hop(to, self.who.0).await && world.turn(self.who).await;
        if arrives { answer } else { failed }
    }
}
