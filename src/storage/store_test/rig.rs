//! One member without consensus: what is proposed is committed at once.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use prost::Message;
use quorate_core::api::batch::RevisionRecord;
use quorate_core::api::ids::{GroupId, LogId, MemberId, Revision};
use quorate_core::api::pb::authpb::Permission;
use quorate_core::api::pb::etcdserverpb as pb;
use quorate_core::api::pb::internal::{
    AuthRequest, AuthUserAdd, Blank, Command, Entry, FleetAdmit, FleetAuthTokenIssue,
    FleetAuthority, FleetBootstrap, FleetNode, FleetRequest, FleetRole, FleetTokenIssue,
    LogPayload, MemberNode, Membership, VoterSet, auth_request::Ask, command::Request,
    fleet_request::Ask as FleetAsk, log_payload::Payload,
};
use quorate_core::api::view::View;
use quorate_core::state_machine::{StateMachine, level_of};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::storage::device::double::DoubleDevice;
use crate::storage::device::{FileDevice, LogDevice, LogFile};
use crate::storage::journal::{Journal, JournalError, JournalOptions, LogRecord, Runner, Vote};
use crate::storage::{
    DefragError, EngineKind, InstallError, OpenError, Opened, Prepared, RebuildReport, Store,
    StoreOptions, StoreView, UpkeepRunner,
};
use crate::support::clock::{Clock, SystemClock};

pub(super) const GROUP: GroupId = GroupId(0);

/// What a member is opened on.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) journal: Arc<dyn LogDevice>,
    pub(super) group: Arc<dyn LogDevice>,
    pub(super) folder: PathBuf,
    pub(super) engine: EngineKind,
    pub(super) runner: UpkeepRunner,
    pub(super) base_after_bytes: u64,
    pub(super) base_after_requests: u64,
    pub(super) segment_bytes: u64,
    /// The whole journal is applied at a start.
    pub(super) single_voter: bool,
    pub(super) forced_voter: Option<MemberId>,
}

impl Place {
    /// Real files under `folder`, sled, threads.
    pub(super) fn files(folder: &Path) -> Place {
        let group = folder.join("groups/0");
        Place {
            journal: Arc::new(FileDevice::open(&folder.join("journal")).unwrap()),
            group: Arc::new(FileDevice::open(&group).unwrap()),
            folder: group,
            engine: EngineKind::Sled,
            runner: UpkeepRunner::Threads,
            base_after_bytes: 64 << 20,
            base_after_requests: u64::MAX,
            segment_bytes: 512 << 10,
            single_voter: true,
            forced_voter: None,
        }
    }

    /// A disk in memory, no state store, everything in the caller's thread.
    pub(super) fn double(disk: &DoubleDevice) -> Place {
        let folder = |name| Folder { disk: disk.clone(), name };
        Place {
            journal: Arc::new(folder("journal/")),
            group: Arc::new(folder("group/")),
            folder: PathBuf::new(),
            engine: EngineKind::Memory,
            runner: UpkeepRunner::InPlace,
            base_after_bytes: u64::MAX,
            base_after_requests: u64::MAX,
            segment_bytes: 128 << 10,
            single_voter: true,
            forced_voter: None,
        }
    }

    pub(super) fn options(&self) -> StoreOptions {
        StoreOptions {
            engine: self.engine,
            runner: self.runner,
            sled_cache_bytes: 4 << 20,
            flush_every: Duration::from_millis(5),
            base_after_bytes: self.base_after_bytes,
            base_after_requests: self.base_after_requests,
            reserve_bytes: 0,
            single_voter: self.single_voter,
            forced_voter: self.forced_voter,
            ..StoreOptions::new(GROUP, self.folder.clone(), Arc::clone(&self.group))
        }
    }
}

pub(super) struct Member {
    pub(super) journal: Journal,
    pub(super) store: Store,
    pub(super) machine: StateMachine,
    pub(super) rebuilt: Option<RebuildReport>,
    pub(super) replayed: u64,
    next: LogId,
}

pub(super) fn open(place: &Place) -> Member {
    try_open(place).unwrap_or_else(|error| panic!("{error}"))
}

pub(super) fn try_open(place: &Place) -> Result<Member, OpenError> {
    let options = JournalOptions {
        segment_bytes: place.segment_bytes,
        seed: Some(1),
        ..JournalOptions::default()
    };
    let runner = match place.runner {
        UpkeepRunner::Threads => Runner::Thread,
        UpkeepRunner::InPlace => Runner::InPlace,
    };
    let journal = Journal::open(Arc::clone(&place.journal), options, runner)?;
    let Opened { store, machine, rebuilt, replayed } =
        Store::open(place.options(), journal.group(GROUP))?;
    let last = journal.group(GROUP).state().last;
    Ok(Member {
        journal,
        store,
        machine,
        rebuilt,
        replayed,
        next: last.map_or(LogId::new(1, 0), |last| LogId::new(last.term.0, last.index + 1)),
    })
}

pub(super) fn put(key: &str, value: &[u8]) -> Request {
    Request::Put(pb::PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value),
        ..pb::PutRequest::default()
    })
}

pub(super) fn delete(key: &str) -> Request {
    Request::DeleteRange(pb::DeleteRangeRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        ..pb::DeleteRangeRequest::default()
    })
}

pub(super) fn grant(id: i64) -> Request {
    Request::LeaseGrant(pb::LeaseGrantRequest { id, ttl: 60 })
}

pub(super) fn compact(revision: i64) -> Request {
    Request::Compaction(pb::CompactionRequest { revision, physical: false })
}

fn auth(ask: Ask) -> Request {
    Request::Auth(AuthRequest { ask: Some(ask) })
}

pub(super) fn user_add(name: &str, hash: &str) -> Request {
    let (name, password_hash) = (name.to_owned(), hash.to_owned());
    auth(Ask::UserAdd(AuthUserAdd { name, no_password: false, password_hash }))
}

pub(super) fn grant_role(user: &str, role: &str) -> Request {
    let (user, role) = (user.to_owned(), role.to_owned());
    auth(Ask::UserGrantRole(pb::AuthUserGrantRoleRequest { user, role }))
}

pub(super) fn role_add(name: &str) -> Request {
    auth(Ask::RoleAdd(pb::AuthRoleAddRequest { name: name.to_owned() }))
}

/// Lets a role read.
pub(super) fn permit(role: &str, key: &str, range_end: &str) -> Request {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let perm = Permission { perm_type: 0, key: bytes(key), range_end: bytes(range_end) };
    let name = role.to_owned();
    auth(Ask::RoleGrantPermission(pb::AuthRoleGrantPermissionRequest { name, perm: Some(perm) }))
}

fn fleet(ask: FleetAsk) -> Request {
    Request::Fleet(FleetRequest { fence: None, ask: Some(ask) })
}

fn fleet_node(id: u64, name: &str) -> FleetNode {
    FleetNode {
        id,
        name: name.to_owned(),
        address: format!("{name}:6400"),
        role: FleetRole::ControlPlane as i32,
        record: format!("{{\"name\":\"{name}\"}}").into(),
        ..FleetNode::default()
    }
}

/// A fleet of the node `n1`.
pub(super) fn bootstrap(id: u64) -> Request {
    let authority = FleetAuthority {
        generation: 1,
        certificates: vec![Bytes::from_static(b"certificate")],
        sealed_key: Bytes::from_static(b"sealed"),
    };
    fleet(FleetAsk::Bootstrap(FleetBootstrap {
        uid: "0a6b".to_owned(),
        schema_version: 1,
        node: Some(fleet_node(id, "n1")),
        authority: Some(authority),
        keys: Vec::new(),
    }))
}

/// A token that does not run out; its hash is so many times `letter`.
pub(super) fn join_token(name: &str, letter: u8) -> Request {
    fleet(FleetAsk::TokenIssue(FleetTokenIssue {
        name: name.to_owned(),
        role: FleetRole::ControlPlane as i32,
        hash: vec![letter; 32].into(),
        nonce: Bytes::from_static(b"nonce"),
        expires_ms: i64::MAX,
    }))
}

/// A node comes in by a token, under id 8.
pub(super) fn admit(name: &str, letter: u8) -> Request {
    let (token_hash, node) = (vec![letter; 32].into(), Some(fleet_node(8, name)));
    fleet(FleetAsk::Admit(FleetAdmit { token_hash, node }))
}

pub(super) fn auth_token(username: &str, letter: u8) -> Request {
    fleet(FleetAsk::AuthTokenIssue(FleetAuthTokenIssue {
        username: username.to_owned(),
        groups: vec!["g".to_owned()],
        hash: vec![letter; 32].into(),
        nonce: Bytes::from_static(b"nonce"),
    }))
}

/// A membership of these voters, and of these without a vote.
pub(super) fn members(voters: &[u64], learners: &[u64]) -> Membership {
    let node = |id: &u64| MemberNode {
        member_id: *id,
        peer_urls: vec![format!("http://{id}")],
        voter_when_caught_up: false,
    };
    Membership {
        configs: vec![VoterSet { member_ids: voters.to_vec() }],
        nodes: voters.iter().chain(learners).map(node).collect(),
    }
}

pub(super) fn auth_enable() -> Request {
    auth(Ask::Enable(pb::AuthEnableRequest {}))
}

impl Member {
    /// Commits one entry with these requests, as consensus would.
    pub(super) fn propose(&mut self, requests: Vec<Request>) -> LogId {
        let entry = self.entry(requests);
        self.append(LogPayload { payload: Some(entry) })
    }

    /// The next entry, of these requests.
    pub(super) fn entry(&self, requests: Vec<Request>) -> Payload {
        let seq = self.next.index + 1;
        let level = requests.iter().map(level_of).max().unwrap_or(1);
        let commands = requests
            .into_iter()
            .map(|request| Command { request: Some(request), ..Command::default() });
        Payload::Entry(Entry {
            level,
            member_id: 7,
            incarnation: 1,
            seq,
            time_ms: 1,
            commands: commands.collect(),
        })
    }

    pub(super) fn propose_blank(&mut self) -> LogId {
        self.append(LogPayload { payload: Some(Payload::Blank(Blank {})) })
    }

    /// Puts a membership in force: these voters, and these without a vote.
    pub(super) fn propose_members(&mut self, voters: &[u64], learners: &[u64]) -> LogId {
        self.append(LogPayload { payload: Some(Payload::Membership(members(voters, learners))) })
    }

    /// What came from a leader and was not committed yet when this member stopped: it is in the log, synced.
    pub(super) fn receive(&mut self, payload: Payload) {
        let payload = LogPayload { payload: Some(payload) };
        assert!(self.write(self.next, &payload), "it is synced");
        self.next.index += 1;
    }

    /// Whether it is in the log, synced: the disk may have been frozen, and then nobody is told of this entry.
    fn write(&self, at: LogId, payload: &LogPayload) -> bool {
        let log = self.journal.group(GROUP);
        let record = LogRecord { id: at, payload: payload.encode_to_vec().into() };
        let (sender, receiver) = std::sync::mpsc::channel();
        let queued = log.append(vec![record], Box::new(move |result| sender.send(result).unwrap()));
        queued.is_ok() && receiver.recv().unwrap().is_ok()
    }

    /// Whether a vote is kept, synced.
    pub(super) fn saves(&self, vote: Vote) -> bool {
        let (sender, receiver) = std::sync::mpsc::channel();
        let done = Box::new(move |result| sender.send(result).unwrap());
        let queued = self.journal.group(GROUP).save_vote(vote, done);
        queued.is_ok() && receiver.recv().unwrap().is_ok()
    }

    fn append(&mut self, payload: LogPayload) -> LogId {
        let at = self.next;
        if !self.write(at, &payload) {
            return at;
        }
        self.journal.group(GROUP).set_committed(at);
        let applied = self.machine.apply(&self.store.view(), at, &payload).unwrap();
        assert!(!applied.duplicate);
        self.store.commit(applied.batch).unwrap();
        self.next.index += 1;
        at
    }

    /// Puts, deletes, leases and several requests an entry, at random.
    pub(super) fn write_randomly(&mut self, seed: u64, entries: usize, value_bytes: usize) {
        let mut rng = StdRng::seed_from_u64(seed);
        for _ in 0..entries {
            let requests =
                (0..rng.random_range(1..5)).map(|_| random_request(&mut rng, value_bytes));
            let requests = requests.collect();
            self.propose(requests);
        }
    }

    /// Waits until everything committed is in the state store.
    pub(super) fn settle(&self) {
        eventually(|| {
            self.store.run_upkeep().unwrap();
            self.store.figures().tail_bytes == 0
        });
    }

    /// Writes a base, and purges the log behind it, as consensus does.
    pub(super) fn take_base(&self) {
        let before = self.store.figures().bases;
        self.store.request_base();
        eventually(|| {
            self.store.run_upkeep().unwrap();
            self.store.figures().bases > before
        });
        self.purge().unwrap();
    }

    /// Defragments, with whatever is told about it.
    pub(super) fn defragment(&self) -> Result<(), DefragError> {
        let asked = self.store.request_defragment();
        let mut told = None;
        eventually(|| {
            self.store.run_upkeep().unwrap();
            told = self.store.defragmented(asked).now_or_never();
            told.is_some()
        });
        told.unwrap()
    }

    /// Purges the log behind the newest base.
    pub(super) fn purge(&self) -> Result<(), JournalError> {
        let log = self.journal.group(GROUP);
        log.state().base.map_or(Ok(()), |base| log.purge_to(base.at))
    }

    /// Goes on after a crash: writes, takes a base, loses power and is the same again.
    pub(super) fn goes_on(mut self, disk: &DoubleDevice, seed: u64, case: &str) {
        self.write_randomly(77, 3, 100);
        self.take_base();
        let before = self.snapshot();
        drop(self);
        let after = disk.after_power_cut(seed);
        assert_eq!(open(&Place::double(&after)).snapshot(), before, "{case}");
    }

    /// Receives the newest base of `from` in pieces of `piece` bytes, and builds it.
    pub(super) fn receive_from(
        &self,
        from: &Member,
        piece: usize,
    ) -> Result<Prepared, InstallError> {
        let source = from.store.newest_base().unwrap();
        let receiving = self.store.receive(source.label().clone())?;
        while receiving.received() < source.label().len {
            receiving.write(&source.read(receiving.received(), piece).unwrap())?;
        }
        receiving.prepare(&|| false)
    }

    /// Puts it in force, as the keyspace does. `false`: the journal has failed.
    pub(super) fn install(&mut self, mut prepared: Prepared) -> bool {
        let at = prepared.label().at;
        let (sender, receiver) = std::sync::mpsc::channel();
        let queued = prepared.record(Box::new(move |result| sender.send(result).unwrap()));
        if queued.is_err() || receiver.recv().unwrap().is_err() {
            return false;
        }
        let Ok((store, machine)) = prepared.start() else { return false };
        let old = std::mem::replace(&mut self.store, store);
        let old_machine = std::mem::replace(&mut self.machine, machine);
        self.store.succeed(Arc::new(old), old_machine);
        self.next = LogId::new(1, at.index + 1);
        true
    }

    /// The files of the group's folder.
    pub(super) fn files(&self) -> Vec<String> {
        self.store.shared.options.device.list().unwrap()
    }

    /// Everything that can be read, and the hash over everything applied.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            history: history(&self.store.view()),
            rolling_hash: self.machine.rolling_hash(),
            revision: self.machine.revision(),
            leases: self.machine.leases().map(|id| id.0).collect(),
            in_use: self.store.db_size_in_use(),
        }
    }

    /// Stops as a process that ends in good order.
    pub(super) fn close(self) {
        self.store.close();
        self.journal.close().unwrap();
    }
}

#[derive(PartialEq)]
pub(super) struct Snapshot {
    pub(super) history: Vec<RevisionRecord>,
    pub(super) rolling_hash: u64,
    pub(super) revision: i64,
    pub(super) leases: Vec<i64>,
    pub(super) in_use: u64,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ends = (self.history.first(), self.history.last());
        f.debug_struct("Snapshot")
            .field("records", &self.history.len())
            .field("from", &ends.0.map(|record| record.revision))
            .field("to", &ends.1.map(|record| record.revision))
            .field("rolling_hash", &self.rolling_hash)
            .field("revision", &self.revision)
            .field("leases", &self.leases.len())
            .field("in_use", &self.in_use)
            .finish()
    }
}

/// All that a view shows.
pub(super) fn history(view: &StoreView) -> Vec<RevisionRecord> {
    let mut history = Vec::new();
    let mut from = Revision::default();
    loop {
        let part = view.scan(from, 10_000).unwrap();
        let Some(last) = part.last() else { return history };
        from = Revision::new(last.revision.main + 1, 0);
        history.extend(part);
    }
}

fn random_request(rng: &mut StdRng, value_bytes: usize) -> Request {
    let key = format!("key-{}", rng.random_range(0..50));
    match rng.random_range(0..10) {
        0..7 => {
            let mut value = vec![0; rng.random_range(0..=value_bytes)];
            rng.fill(value.as_mut_slice());
            put(&key, &value)
        }
        7..9 => delete(&key),
        _ => grant(rng.random_range(1..1000)),
    }
}

/// Waits for a claim to come true.
pub(super) fn eventually(mut claim: impl FnMut() -> bool) {
    let clock = SystemClock::default();
    while !claim() {
        assert!(clock.monotonic() < Duration::from_secs(20), "it did not come true in 20 s");
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// A folder of a disk in memory that holds several.
#[derive(Clone, Debug)]
struct Folder {
    disk: DoubleDevice,
    name: &'static str,
}

impl Folder {
    fn path(&self, name: &str) -> String {
        format!("{}{name}", self.name)
    }
}

impl LogDevice for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        let names = self.disk.list()?.into_iter();
        Ok(names.filter_map(|name| Some(name.strip_prefix(self.name)?.to_owned())).collect())
    }

    fn create_zeroed(
        &self,
        name: &str,
        size: u64,
        written: &mut dyn FnMut(u64),
    ) -> io::Result<Arc<dyn LogFile>> {
        self.disk.create_zeroed(&self.path(name), size, written)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        self.disk.create(&self.path(name))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        self.disk.open(&self.path(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(&self.path(from), &self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(&self.path(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }

    fn free_space(&self) -> io::Result<u64> {
        self.disk.free_space()
    }
}
