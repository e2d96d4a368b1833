//! Several real members, each in a network namespace of its own.
//!
//! ```text
//!   lay_out ── launch in any order ── await_ready ── faults: kill · pause · cut · readdress ── heal
//!                                                        clients: endpoints(), home by home
//! ```
//!
//! **Invariant:** members are told what the seed's manifest tells them, by `ETCD_*` variables alone; flags are only
//! those a run asks for.

pub(crate) mod census;
pub(crate) mod http;
pub(crate) mod network;
pub(crate) mod power;

use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use parking_lot::RwLock;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use tokio::task::block_in_place;

use self::network::{Cut, Network, Node};
use self::power::{PowerDisk, SharedFolder};
use crate::client::Client;
use crate::member::{Home, Member, MemberSpec};
use crate::powerfs::odds::Losses;

const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
/// For a start or a restart while the others run.
pub(crate) const START_DEADLINE: Duration = Duration::from_secs(60);

/// Whether a member begins a cluster or joins one.
const INITIAL_STATE: &str = "ETCD_INITIAL_CLUSTER_STATE";

const METRICS_PATIENCE: Duration = Duration::from_secs(5);

/// Where members are found now; changes when one is given another address.
pub(crate) type Endpoints = Arc<RwLock<Vec<String>>>;

/// A cluster, running or not.
#[derive(Debug)]
pub(crate) struct Cluster {
    // Processes go first, then their disks.
    seats: Vec<Seat>,
    disks: Vec<Option<PowerDisk>>,
    shared_folder: Option<SharedFolder>,
    network: Network,
    endpoints: Endpoints,
}

#[derive(Debug)]
struct Seat {
    spec: MemberSpec,
    member: Option<Member>,
}

// === impl Cluster ===

impl Cluster {
    /// Makes namespaces and plans; starts nothing.
    ///
    /// # Errors
    /// When namespaces are not permitted.
    pub(crate) fn lay_out(
        binary: &Path,
        root: &Path,
        count: usize,
        flags: &[String],
    ) -> Result<Self> {
        let names: Vec<_> = (0..count).map(|nth| format!("m{nth}")).collect();
        let network = Network::create(&names)?;
        let mut seats = Vec::new();
        for (nth, name) in names.iter().enumerate() {
            let mut spec = MemberSpec::single(binary, root, name)?;
            spec.name.clone_from(name);
            (spec.client_port, spec.peer_port) = (CLIENT_PORT, PEER_PORT);
            spec.extra = flags.to_vec();
            spec.home =
                Some(Home { namespace: network.namespace(nth), address: network.address(nth) });
            // The rest of what the manifest sets.
            spec.environment = [
                ("ETCD_INITIAL_CLUSTER_TOKEN", "im-registry"),
                (INITIAL_STATE, "new"),
                ("ETCD_AUTO_COMPACTION_RETENTION", "1"),
                ("ETCD_QUOTA_BACKEND_BYTES", "8589934592"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec();
            seats.push(Seat { spec, member: None });
        }
        let listed: Vec<_> = seats
            .iter()
            .map(|seat| format!("{}={}", seat.spec.name, seat.spec.peer_url()))
            .collect();
        for seat in &mut seats {
            seat.spec.initial_cluster = listed.join(",");
        }
        let endpoints = seats.iter().map(|seat| seat.spec.endpoint()).collect();
        let disks = names.iter().map(|_| None).collect();
        let endpoints = Arc::new(RwLock::new(endpoints));
        Ok(Self { seats, disks, shared_folder: None, network, endpoints })
    }

    /// Puts each member's data on a disk that can lose its power. Before anything is started.
    ///
    /// # Errors
    /// Without FUSE.
    pub(crate) fn power_disks(&mut self, root: &Path, lies: &[String]) -> Result<()> {
        let folder = root.join("disks");
        self.shared_folder = Some(SharedFolder::over(&folder)?);
        for (nth, seat) in self.seats.iter_mut().enumerate() {
            let at = folder.join(&seat.spec.name);
            self.disks[nth] = Some(PowerDisk::mount(&at, lies)?);
            seat.spec.data_dir = at.join("data");
        }
        Ok(())
    }

    fn disk(&self, nth: usize) -> Result<&PowerDisk> {
        self.disks[nth].as_ref().with_context(|| format!("m{nth} has no disk that can lose power"))
    }

    /// The power of these members goes, all at once, within `time`; their processes are killed after `linger`.
    pub(crate) fn cut_power(
        &mut self,
        members: &[usize],
        time: Duration,
        linger: Duration,
        rng: &mut StdRng,
    ) -> Result<Losses> {
        // One disk's trap decides when, and the others' power goes with it.
        let first = *members.choose(rng).context("nobody to cut")?;
        self.disk(first)?.arm(rng, 11);
        block_in_place(|| self.disk(first).map(|disk| disk.wait_for_cut(time)))?;
        for nth in members {
            self.disk(*nth)?.freeze();
        }
        block_in_place(|| std::thread::sleep(linger));
        let mut losses = Losses::default();
        for nth in members {
            self.kill(*nth)?;
            let disk = self.disks[*nth].take().context("a disk")?;
            let (left, lost) = block_in_place(|| disk.forget(rng))?;
            self.disks[*nth] = Some(left);
            losses += lost;
        }
        Ok(losses)
    }

    /// Starts all, in this order, and waits until each is ready.
    pub(crate) fn start_all(&mut self, order: &[usize]) -> Result<()> {
        for nth in order {
            self.launch(*nth)?;
        }
        self.await_all_ready()
    }

    pub(crate) fn await_all_ready(&mut self) -> Result<()> {
        (0..self.len()).try_for_each(|nth| self.await_ready(nth, START_DEADLINE))
    }

    pub(crate) fn len(&self) -> usize {
        self.seats.len()
    }

    /// How many make a majority.
    pub(crate) fn quorum(&self) -> usize {
        self.len() / 2 + 1
    }

    pub(crate) fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    pub(crate) fn spec(&self, nth: usize) -> &MemberSpec {
        &self.seats[nth].spec
    }

    pub(crate) fn spec_mut(&mut self, nth: usize) -> &mut MemberSpec {
        &mut self.seats[nth].spec
    }

    pub(crate) fn endpoint(&self, nth: usize) -> String {
        self.seats[nth].spec.endpoint()
    }

    pub(crate) async fn client(&self, nth: usize) -> Result<Client> {
        Client::connect(&self.endpoint(nth)).await
    }

    fn member(&self, nth: usize) -> Result<&Member> {
        self.seats[nth].member.as_ref().with_context(|| format!("m{nth} does not run"))
    }

    /// Starts a member and waits for nothing.
    pub(crate) fn launch(&mut self, nth: usize) -> Result<()> {
        let seat = &mut self.seats[nth];
        if seat.member.is_some() {
            bail!("m{nth} runs already");
        }
        seat.member = Some(seat.spec.launch()?);
        Ok(())
    }

    pub(crate) fn await_ready(&mut self, nth: usize, deadline: Duration) -> Result<()> {
        let member = self.seats[nth].member.as_mut();
        let member = member.with_context(|| format!("m{nth} does not run"))?;
        block_in_place(|| member.await_ready(deadline)).with_context(|| format!("m{nth}"))
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, nth: usize) -> Result<()> {
        let member = self.seats[nth].member.take();
        member.with_context(|| format!("m{nth} does not run"))?.kill()?;
        Ok(())
    }

    /// SIGTERM, and the process is gone when this returns.
    pub(crate) fn stop(&mut self, nth: usize, deadline: Duration) -> Result<()> {
        let member = self.seats[nth].member.take();
        let member = member.with_context(|| format!("m{nth} does not run"))?;
        block_in_place(|| member.stop(deadline))?;
        Ok(())
    }

    /// Waits until a process has ended that nobody told to.
    ///
    /// # Errors
    /// When it still runs at the deadline; it is killed then.
    pub(crate) fn await_end(&mut self, nth: usize, deadline: Duration) -> Result<ExitStatus> {
        let member = self.seats[nth].member.take();
        let member = member.with_context(|| format!("m{nth} does not run"))?;
        let ended = block_in_place(|| member.await_end(deadline));
        ended.map(|(_, status)| status).with_context(|| format!("m{nth}"))
    }

    /// Tells a member, for its next start, who the members are, and whether their cluster is `new` or `existing`.
    pub(crate) fn tell(&mut self, nth: usize, members: &[usize], state: &str) {
        let listed: Vec<_> = members
            .iter()
            .map(|of| &self.seats[*of].spec)
            .map(|spec| format!("{}={}", spec.name, spec.peer_url()))
            .collect();
        let spec = &mut self.seats[nth].spec;
        spec.initial_cluster = listed.join(",");
        let told = spec.environment.iter_mut().find(|(name, _)| name == INITIAL_STATE);
        if let Some((_, told)) = told {
            state.clone_into(told);
        }
    }

    /// SIGSTOP.
    pub(crate) fn pause(&self, nth: usize) -> Result<()> {
        self.member(nth)?.pause()
    }

    /// SIGCONT.
    pub(crate) fn resume(&self, nth: usize) -> Result<()> {
        self.member(nth)?.resume()
    }

    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    /// Makes these cuts and no others.
    pub(crate) fn cut(&mut self, cuts: impl IntoIterator<Item = Cut>) -> Result<()> {
        self.network.cut(cuts)
    }

    pub(crate) fn heal(&mut self) -> Result<()> {
        self.network.heal()
    }

    /// Gives a member that is down another address.
    pub(crate) fn readdress(&mut self, nth: usize) -> Result<()> {
        self.network.readdress(nth)?;
        let seat = &mut self.seats[nth];
        if let Some(home) = &mut seat.spec.home {
            home.address = self.network.address(nth);
        }
        self.endpoints.write()[nth] = seat.spec.endpoint();
        Ok(())
    }

    /// Who leads: the others agree, and it does. Waits.
    ///
    /// # Errors
    /// When there is no such member by the deadline.
    pub(crate) async fn leader(&self, deadline: Duration) -> Result<usize> {
        let asked = Instant::now();
        while asked.elapsed() < deadline {
            let endpoints = self.endpoints.read().clone();
            if let Some(leader) = census::leader(&endpoints, self.quorum()).await {
                return Ok(leader);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("no leader for {deadline:?}")
    }

    /// The sum of a counter of `/metrics` over all members and labels; `None` where no member shows it.
    pub(crate) async fn figure_sum(&self, name: &str) -> Option<f64> {
        let mut sum = None;
        for nth in 0..self.len() {
            let answer = http::get(&self.endpoint(nth), "/metrics", METRICS_PATIENCE).await;
            for line in answer.iter().flat_map(|answer| answer.body.lines()) {
                let Some((series, value)) = line.rsplit_once(' ') else { continue };
                if series.split('{').next() == Some(name) {
                    sum = Some(sum.unwrap_or(0.0) + value.parse().unwrap_or(0.0));
                }
            }
        }
        sum
    }

    /// Members that ended by themselves, each with the end of its log.
    pub(crate) fn ended(&mut self) -> Vec<String> {
        let ended = |(nth, seat): (usize, &mut Seat)| {
            let told = seat.member.as_mut()?.ended()?;
            Some(format!("m{nth} ended by itself: {told}"))
        };
        self.seats.iter_mut().enumerate().filter_map(ended).collect()
    }
}

/// Both ways between a member and every other member.
pub(crate) fn isolated(nth: usize, members: usize) -> Vec<Cut> {
    inbound(nth, members).into_iter().chain(outbound(nth, members)).collect()
}

/// Both ways between a member and everyone, clients too.
pub(crate) fn blacked_out(nth: usize, members: usize) -> Vec<Cut> {
    let (here, clients) = (Node::Member(nth), Node::Clients);
    let mut cuts = isolated(nth, members);
    cuts.extend([Cut { from: here, to: clients }, Cut { from: clients, to: here }]);
    cuts
}

/// Nothing of other members reaches this one.
pub(crate) fn inbound(nth: usize, members: usize) -> Vec<Cut> {
    others(nth, members).map(|from| Cut { from, to: Node::Member(nth) }).collect()
}

/// Nothing of this member reaches the others.
pub(crate) fn outbound(nth: usize, members: usize) -> Vec<Cut> {
    others(nth, members).map(|to| Cut { from: Node::Member(nth), to }).collect()
}

fn others(nth: usize, members: usize) -> impl Iterator<Item = Node> {
    (0..members).filter(move |other| *other != nth).map(Node::Member)
}
