//! What is done to a cluster, and undone.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use tokio::time::{sleep, timeout};

use crate::cluster::network::{Cut, Node};
use crate::cluster::{Cluster, START_DEADLINE, blacked_out, census, inbound, isolated, outbound};
use crate::pb::etcdserverpb::MoveLeaderRequest;
use crate::traffic::Arena;

/// With nothing wrong, somebody leads by then.
const LEADER_DEADLINE: Duration = Duration::from_secs(20);
/// A transfer is answered by then, one way or the other.
const TRANSFER_DEADLINE: Duration = Duration::from_secs(10);
/// Slow enough for appends to pile up, fast enough for a leader of this load.
const SLOW_KBIT: u32 = 4096;

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Fault {
    /// SIGKILL, a pause, a restart.
    KillLeader,
    KillFollower,
    /// Two at once, of five.
    KillTwo,
    /// Every one at once: nobody can write for a while.
    KillAll,
    /// SIGSTOP, a pause, SIGCONT.
    PauseLeader,
    PauseFollower,
    /// The leader hears no member and no member hears it; clients reach it.
    CutLeader,
    /// The leader is cut off from members and clients.
    BlackOutLeader,
    /// No member's packets reach the leader; its own arrive.
    CutLeaderInbound,
    /// The leader's packets reach no member; theirs arrive.
    CutLeaderOutbound,
    /// Both ways between two members.
    CutPair,
    /// One member, whoever it is, cut off from the others.
    CutOne,
    /// The power of one member goes: its disk forgets what was not synced. With `--power-disks`.
    PowerCutOne,
    /// The power of all goes at once. With `--power-disks`.
    PowerCutAll,
    /// MoveLeader to a member that is well.
    Transfer,
    /// MoveLeader to a member that was killed.
    TransferToDead,
    /// MoveLeader to a member that was stopped.
    TransferToPaused,
    /// MoveLeader to a member whose packets come out slowly.
    TransferToSlow,
    /// MoveLeader to a member that is cut off.
    TransferToCut,
}

impl Fault {
    pub(crate) fn needs_power_disks(self) -> bool {
        matches!(self, Self::PowerCutOne | Self::PowerCutAll)
    }

    /// How long it may keep everyone from writing; `None`: a majority is gone.
    pub(crate) fn gap_max(self, usual: Duration, of_transfers: Duration) -> Option<Duration> {
        match self {
            Self::KillAll | Self::PowerCutAll => None,
            Self::PowerCutOne
            | Self::KillLeader
            | Self::KillFollower
            | Self::KillTwo
            | Self::PauseLeader
            | Self::PauseFollower
            | Self::CutLeader
            | Self::BlackOutLeader
            | Self::CutLeaderInbound
            | Self::CutLeaderOutbound
            | Self::CutPair
            | Self::CutOne => Some(usual),
            Self::Transfer
            | Self::TransferToDead
            | Self::TransferToPaused
            | Self::TransferToSlow
            | Self::TransferToCut => Some(of_transfers),
        }
    }
}

/// A fault that was done and undone.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    pub(crate) fault: Fault,
    pub(crate) what: String,
    pub(crate) from: Duration,
    /// When it had been undone, restarts included.
    pub(crate) to: Duration,
}

/// Does what it is told to one cluster.
pub(crate) struct Nemesis {
    pub(crate) cluster: Cluster,
    ids: Vec<u64>,
    rng: StdRng,
    /// Seconds a fault lasts.
    hold: (f64, f64),
}

// === impl Nemesis ===

impl Nemesis {
    /// For a cluster whose members all run.
    pub(crate) async fn new(cluster: Cluster, rng: StdRng, hold: (f64, f64)) -> Result<Self> {
        let mut ids = Vec::new();
        for nth in 0..cluster.len() {
            let claim = census::ask(&cluster.endpoint(nth)).await;
            ids.push(claim.with_context(|| format!("m{nth} tells no status"))?.member);
        }
        Ok(Self { cluster, ids, rng, hold })
    }

    fn holding(&mut self) -> Duration {
        Duration::from_secs_f64(self.rng.random_range(self.hold.0..=self.hold.1))
    }

    async fn hold(&mut self) {
        let holding = self.holding();
        sleep(holding).await;
    }

    fn any_but(&mut self, member: usize) -> usize {
        let others: Vec<_> = (0..self.cluster.len()).filter(|nth| *nth != member).collect();
        *others.choose(&mut self.rng).unwrap_or(&member)
    }

    /// Does one fault and undoes it.
    ///
    /// # Errors
    /// When nobody led before, or a member does not come back: that, too, is a finding.
    pub(crate) async fn inflict(&mut self, fault: Fault, arena: &Arena) -> Result<Done> {
        let leader = self.cluster.leader(LEADER_DEADLINE).await?;
        let from = arena.now();
        let what = match fault {
            Fault::KillLeader => self.kill(&[leader]).await?,
            Fault::KillFollower => {
                let follower = self.any_but(leader);
                self.kill(&[follower]).await?
            }
            Fault::KillTwo => {
                let other = self.any_but(leader);
                let first = if self.rng.random_bool(0.6) { leader } else { self.any_but(other) };
                self.kill(&[first, other]).await?
            }
            Fault::KillAll => self.kill(&(0..self.cluster.len()).collect::<Vec<_>>()).await?,
            Fault::PowerCutOne => {
                let one = self.rng.random_range(0..self.cluster.len());
                self.cut_power(&[one]).await?
            }
            Fault::PowerCutAll => {
                self.cut_power(&(0..self.cluster.len()).collect::<Vec<_>>()).await?
            }
            Fault::PauseLeader => self.pause(leader).await?,
            Fault::PauseFollower => {
                let follower = self.any_but(leader);
                self.pause(follower).await?
            }
            Fault::CutLeader
            | Fault::BlackOutLeader
            | Fault::CutLeaderInbound
            | Fault::CutLeaderOutbound
            | Fault::CutPair
            | Fault::CutOne => self.cut(fault, leader).await?,
            Fault::Transfer
            | Fault::TransferToDead
            | Fault::TransferToPaused
            | Fault::TransferToSlow
            | Fault::TransferToCut => self.transfer(fault, leader).await?,
        };
        let done = Done { fault, what, from, to: arena.now() };
        println!("{:6.1} s {fault:?}: {}", done.from.as_secs_f64(), done.what);
        Ok(done)
    }

    async fn kill(&mut self, victims: &[usize]) -> Result<String> {
        for nth in victims {
            self.cluster.kill(*nth)?;
        }
        self.hold().await;
        for nth in victims {
            self.cluster.launch(*nth)?;
        }
        for nth in victims {
            self.cluster.await_ready(*nth, START_DEADLINE)?;
        }
        Ok(format!("killed {victims:?}"))
    }

    async fn cut_power(&mut self, victims: &[usize]) -> Result<String> {
        let mut what = String::new();
        loop {
            let time = Duration::from_millis(self.rng.random_range(0..600));
            let linger = Duration::from_millis(self.rng.random_range(0..30));
            let losses = self.cluster.cut_power(victims, time, linger, &mut self.rng)?;
            what += &format!("cut the power of {victims:?}: {losses}; ");
            self.hold().await;
            for nth in victims {
                self.cluster.launch(*nth)?;
            }
            // Now and then it goes again while they start.
            if self.rng.random_bool(0.85) {
                break;
            }
        }
        for nth in victims {
            self.cluster.await_ready(*nth, START_DEADLINE)?;
        }
        Ok(what)
    }

    async fn pause(&mut self, nth: usize) -> Result<String> {
        self.cluster.pause(nth)?;
        self.hold().await;
        self.cluster.resume(nth)?;
        Ok(format!("stopped and continued {nth}"))
    }

    async fn cut(&mut self, fault: Fault, leader: usize) -> Result<String> {
        let members = self.cluster.len();
        let cuts = match fault {
            Fault::BlackOutLeader => blacked_out(leader, members),
            Fault::CutLeaderInbound => inbound(leader, members),
            Fault::CutLeaderOutbound => outbound(leader, members),
            Fault::CutPair => {
                let one = self.rng.random_range(0..members);
                let other = self.any_but(one);
                let (one, other) = (Node::Member(one), Node::Member(other));
                vec![Cut { from: one, to: other }, Cut { from: other, to: one }]
            }
            Fault::CutOne => isolated(self.rng.random_range(0..members), members),
            _ => isolated(leader, members),
        };
        let what = format!("leader {leader}, cut {}", told(&cuts));
        self.cluster.cut(cuts)?;
        self.hold().await;
        self.cluster.heal()?;
        Ok(what)
    }

    async fn transfer(&mut self, fault: Fault, leader: usize) -> Result<String> {
        let target = self.any_but(leader);
        match fault {
            Fault::TransferToDead => self.cluster.kill(target)?,
            Fault::TransferToPaused => self.cluster.pause(target)?,
            Fault::TransferToSlow => self.cluster.network().slow(target, Some(SLOW_KBIT))?,
            Fault::TransferToCut => self.cluster.cut(isolated(target, self.cluster.len()))?,
            _ => {}
        }
        let mut client = self.cluster.client(leader).await?;
        let request = MoveLeaderRequest { target_id: self.ids[target] };
        let begun = std::time::Instant::now();
        let answer = timeout(TRANSFER_DEADLINE, client.maintenance.move_leader(request)).await;
        let answer = match answer {
            Ok(Ok(_)) => "done".to_owned(),
            Ok(Err(status)) => format!("{:?}: {}", status.code(), status.message()),
            Err(_) => format!("no answer in {TRANSFER_DEADLINE:?}"),
        };
        let what = format!("from {leader} to {target}: {answer} after {:.2?}", begun.elapsed());
        if fault != Fault::Transfer {
            self.hold().await;
        }
        match fault {
            Fault::TransferToDead => {
                self.cluster.launch(target)?;
                self.cluster.await_ready(target, START_DEADLINE)?;
            }
            Fault::TransferToPaused => self.cluster.resume(target)?,
            Fault::TransferToSlow => self.cluster.network().slow(target, None)?,
            Fault::TransferToCut => self.cluster.heal()?,
            _ => {}
        }
        Ok(what)
    }
}

fn told(cuts: &[Cut]) -> String {
    let name = |node: Node| match node {
        Node::Clients => "clients".to_owned(),
        Node::Member(nth) => nth.to_string(),
    };
    let arrows: Vec<_> =
        cuts.iter().map(|cut| format!("{}→{}", name(cut.from), name(cut.to))).collect();
    arrows.join(" ")
}
