//! One life of the server between two cuts.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::task::block_in_place;
use tokio::time::{sleep, timeout};

use super::Options;
use super::check::{self, check};
use super::damage::{self, Damage, damage};
use super::ledger::Ledger;
use super::load::Load;
use super::plan::{Plan, When};
use super::tally::Tally;
use crate::client::Client;
use crate::member::{Member, MemberSpec, Workspace};
use crate::powerfs::image::{Image, Lies};
use crate::powerfs::mount::PowerFs;
use crate::powerfs::names::ROOT;
use crate::powerfs::odds::Odds;

/// The data directory's name on the disk.
const DATA: &str = "data";
/// A start that is to be cut is not waited for longer.
const STARTUP_CUT_DEADLINE: Duration = Duration::from_secs(4);
/// Disks of earlier lives, to roll back to.
const OLDER_MAX: usize = 6;

/// A run: what outlives a life.
#[derive(Debug)]
pub(crate) struct Run {
    options: Options,
    workspace: Workspace,
    spec: MemberSpec,
    ledger: Arc<Mutex<Ledger>>,
    pub(crate) tally: Tally,
    /// What the next life starts on.
    disk: Image,
    /// What was mounted when the last cut fell.
    before_cut: Option<Image>,
    /// Earlier ones, oldest first; empty unless folders are damaged.
    older: VecDeque<Image>,
    /// What was done to the disk since the last life.
    damage: Option<Damage>,
}

// === impl Run ===

impl Run {
    pub(crate) fn new(options: Options) -> Result<Self> {
        let workspace = Workspace::create("powercut")?;
        let mount = workspace.path().join("disk");
        std::fs::create_dir_all(&mount)?;
        let mut spec = MemberSpec::single(&options.server, workspace.path(), "server")?;
        spec.data_dir = mount.join(DATA);
        let words = options.args.iter().flat_map(|args| args.split_whitespace());
        spec.extra = words.map(str::to_owned).collect();
        spec.environment = options.env.clone();
        let lies = Lies {
            files: options.ignore_sync.clone(),
            directories: options.ignore_directory_syncs,
        };
        Ok(Self {
            disk: Image::new(options.name_sync, lies),
            options,
            workspace,
            spec,
            ledger: Arc::default(),
            tally: Tally::default(),
            before_cut: None,
            older: VecDeque::new(),
            damage: None,
        })
    }

    fn mount_point(&self) -> PathBuf {
        self.workspace.path().join("disk")
    }

    /// Starts on the disk, checks it, and unless it is the last life loads it and cuts. Returns what was wrong.
    ///
    /// # Errors
    /// What hinders the harness.
    pub(crate) async fn life(&mut self, number: u32, last: bool) -> Result<Vec<String>> {
        let plan = Plan::draw(&self.options, number);
        let latency = Duration::from_micros(self.options.sync_latency_us);
        let fs = PowerFs::mount(self.disk.clone(), &self.mount_point(), latency)
            .context("cannot mount the disk: FUSE needs root or fusermount3")?;
        let findings = match &plan.when {
            When::Startup(trap) if !last => {
                fs.with(|image| image.arm(trap.clone()));
                self.start_and_cut(&fs, &plan);
                Vec::new()
            }
            When::Startup(_) | When::Time | When::Calls(_) | When::Aimed { .. } => {
                self.serve_and_cut(&fs, &plan, number, last).await?
            }
        };
        let image = block_in_place(|| fs.unmount()).context("cannot unmount the disk")?;
        self.tally.acknowledged = self.ledger.lock().acknowledged;
        if findings.is_empty() && !last {
            self.leave(image, plan)?;
        }
        Ok(findings)
    }

    /// The power goes while the server starts, or right after.
    fn start_and_cut(&mut self, fs: &PowerFs, plan: &Plan) {
        // A server that cannot start without power is right; what it left is for the next life to show.
        let started = block_in_place(|| self.spec.start(STARTUP_CUT_DEADLINE));
        fs.with(Image::freeze);
        drop(started);
        self.tally.cut(&plan.when, true);
    }

    async fn serve_and_cut(
        &mut self,
        fs: &PowerFs,
        plan: &Plan,
        number: u32,
        last: bool,
    ) -> Result<Vec<String>> {
        let deadline = self.options.start_deadline();
        let member = match block_in_place(|| self.spec.start(deadline)) {
            Ok(member) => member,
            Err(error) => return Ok(vec![format!("does not start: {error:#}")]),
        };
        let client = Client::connect(&self.spec.endpoint()).await?;
        let checked = timeout(check::PATIENCE, check(&client, &self.ledger)).await;
        let mut findings = match checked {
            Ok((findings, checked)) => {
                self.tally.checked(checked);
                findings
            }
            Err(_) => vec![format!("ready, but no answer in {:?}", check::PATIENCE)],
        };
        findings.extend(self.check_rebuilds(&member)?);
        if last || !findings.is_empty() {
            member.kill()?;
            return Ok(findings);
        }
        let load = Load::start(&client, &self.ledger, number, self.options.clients, plan.seed);
        if plan.live {
            self.damage_live(fs, plan.seed).await?;
        }
        self.cut(fs, plan).await;
        sleep(plan.linger).await;
        member.kill()?;
        Ok(load.stop().await)
    }

    /// Waits for the moment of the plan.
    async fn cut(&mut self, fs: &PowerFs, plan: &Plan) {
        let mut wait = plan.life;
        match &plan.when {
            When::Calls(trap) => fs.with(|image| image.arm(trap.clone())),
            When::Aimed { after, trap } => {
                sleep(*after).await;
                wait = plan.life.saturating_sub(*after);
                fs.with(|image| image.arm(trap.clone()));
            }
            When::Startup(_) | When::Time => {}
        }
        let sprung = block_in_place(|| fs.wait_for_cut(wait));
        fs.with(Image::freeze);
        self.tally.cut(&plan.when, sprung);
    }

    /// Damages the folder in place once a base is being written. The server may find out and stop by itself.
    async fn damage_live(&mut self, fs: &PowerFs, seed: u64) -> Result<()> {
        let Some(glob) = &self.options.state_glob else { return Ok(()) };
        let glob = format!("{DATA}/{glob}");
        let mut rng = StdRng::seed_from_u64(!seed);
        let until = Instant::now() + Duration::from_millis(self.options.aim_ms_max);
        while Instant::now() < until {
            let done = fs.with(|image| -> Result<bool> {
                Ok(is_writing_base(image, &self.options)?
                    && damage::in_place(image, &glob, &mut rng)?)
            })?;
            if done {
                self.tally.live_damages += 1;
                return Ok(());
            }
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    fn check_rebuilds(&mut self, member: &Member) -> Result<Vec<String>> {
        let Some(damage) = self.damage.take() else {
            return Ok(Vec::new());
        };
        let log = member.log_text()?;
        let rebuilds = log.lines().filter(|text| text.contains(&self.options.rebuild_line)).count();
        self.tally.rebuilds += rebuilds;
        if damage.rebuilds().contains(&rebuilds) {
            return Ok(Vec::new());
        }
        Ok(vec![format!("{damage:?}: {rebuilds} lines tell of a rebuild")])
    }

    /// Makes the disk of the next life.
    fn leave(&mut self, image: Image, mut plan: Plan) -> Result<()> {
        let before = image.settled();
        self.tally.during_base += u32::from(is_writing_base(&before, &self.options)?);
        self.before_cut = Some(before);
        let rng = &mut plan.rng;
        let next = if plan.power {
            let odds = Odds::draw(rng, !self.options.no_torn, self.options.names);
            let (left, losses) = image.cut(rng, &odds);
            self.tally.losses += losses;
            left
        } else {
            image.settled()
        };
        self.disk = next;
        if let Some(glob) = &self.options.state_glob {
            self.older.push_back(self.disk.clone());
            if self.older.len() > OLDER_MAX {
                self.older.pop_front();
            }
            let glob = format!("{DATA}/{glob}");
            self.damage = damage(&mut self.disk, self.older.make_contiguous(), &glob, rng)?;
            self.tally.damages += u32::from(self.damage.is_some());
        }
        Ok(())
    }

    /// Keeps what a failure needs to be looked into, and prints where it is and how to see it again.
    ///
    /// # Errors
    /// The kept disk cannot be written.
    pub(crate) fn report_failure(&self, life: u32) -> Result<()> {
        let root = self.workspace.path();
        let (left, before) = (root.join("left-by-cut"), root.join("before-cut"));
        self.disk.export(&left)?;
        if let Some(image) = &self.before_cut {
            image.export(&before)?;
        }
        println!("life {life} of seed {} went wrong: {}", self.options.seed, self.tally);
        if let Some(damage) = self.damage {
            println!("the folder was {damage:?}");
        }
        let server = self.options.server.display();
        let (data, args) = (left.join(DATA), self.spec.extra.join(" "));
        println!("the disk that the cut left: {}", left.display());
        println!("the disk at the cut, all of it: {}", before.display());
        println!("the server's log: {}", self.spec.log.display());
        println!("start on a copy of it: {server} --data-dir {} {args}", data.display());
        println!("replay: {}", self.options.replay(life));
        Ok(())
    }

    /// Removes what the run left on the real disk.
    ///
    /// # Errors
    /// The folder cannot be removed.
    pub(crate) fn discard(self) -> Result<()> {
        self.workspace.discard()
    }
}

/// Whether a base is half written on this disk.
fn is_writing_base(image: &Image, options: &Options) -> Result<bool> {
    damage::holds(image, ROOT, &options.base_prefix)
}
