//! Records: what a frame carries. Byte tables in docs/DATA_FORMAT.md.
//!
//! ```text
//!   0 length u32 (of the payload) | 4 kind u8 | 5 flags u8 | 6 zero u16 | 8 group u64 | 16 index u64 | 24 payload
//! ```

use bytes::{Buf, BufMut, Bytes};
use quorate_core::api::ids::{GroupId, LogId, MemberId};

/// Bytes before a record's payload.
pub(crate) const RECORD_HEADER: usize = 24;
/// Bytes before an entry's own payload within the record's: the term.
pub(crate) const ENTRY_OVERHEAD: usize = RECORD_HEADER + 8;

/// One entry of a group's log. Its `Debug` tells the payload's length only.
#[derive(Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Its place.
    pub id: LogId,
    /// The encoded log payload, opaque here.
    pub payload: Bytes,
}

impl std::fmt::Debug for LogRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LogRecord({}, {} bytes)", self.id, self.payload.len())
    }
}

/// What a member promised in a term, or the leader it follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vote {
    /// The term.
    pub term: u64,
    /// For whom.
    pub voted_for: Option<MemberId>,
    /// A quorum granted it.
    pub committed: bool,
}

/// A base file that is whole on disk: from here on it and the entries above `at` are the truth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BaseMark {
    /// The last entry in it.
    pub at: LogId,
    /// The generation of the state it belongs to.
    pub generation: u64,
    /// Its name in the group's folder.
    pub file_name: String,
    /// Its length in bytes.
    pub len: u64,
    /// The hash of its content.
    pub content_hash: u64,
}

/// A snapshot received from the leader takes the place of the state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstallMark {
    /// The last entry in the snapshot.
    pub snapshot: LogId,
    /// The generation that becomes current.
    pub generation: u64,
    /// The file it is in, at `snapshot`.
    pub base: BaseMark,
    /// The raft membership of that point, encoded by the floor above.
    pub membership: Bytes,
}

/// All that the journal holds of a group, but its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupState {
    /// The newest vote.
    pub vote: Option<Vote>,
    /// The commit index known here.
    pub committed: Option<LogId>,
    /// The last entry that is gone.
    pub purged: Option<LogId>,
    /// The last entry, or `purged` when there is none.
    pub last: Option<LogId>,
    /// The newest base.
    pub base: Option<BaseMark>,
    /// The current generation of the state.
    pub generation: u64,
}

/// A record. Entries are kept apart from the rest so that encoding one copies its payload once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// An entry; `restated` ones only tell where an entry that exists now lies.
    Entry {
        entry: LogRecord,
        restated: bool,
    },
    Vote(Vote),
    Committed(LogId),
    /// Entries from `from` on are void; `last` is what the log then ends with.
    TruncateFrom {
        from: u64,
        last: Option<LogId>,
    },
    PurgedTo(LogId),
    Base(BaseMark),
    /// `keeps_log`: the log held the snapshot's id, entries above it stay.
    Install {
        mark: InstallMark,
        keeps_log: bool,
    },
    GroupState(GroupState),
    GroupDropped,
    /// Segments before this one are not needed.
    Floor(u64),
    /// Nothing follows for a while.
    Seal(Seal),
}

/// What comes after a seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seal {
    /// More, later.
    Idle,
    /// Nothing until the journal is opened anew.
    Closing,
    /// A next segment, which exists: its name was synced before this was written.
    Continued,
}

const ENTRY: u8 = 1;
const VOTE: u8 = 2;
const COMMITTED: u8 = 3;
const TRUNCATE: u8 = 4;
const PURGED: u8 = 5;
const BASE: u8 = 6;
const INSTALL: u8 = 7;
const GROUP_STATE: u8 = 8;
const GROUP_DROPPED: u8 = 9;
const FLOOR: u8 = 10;
const SEAL: u8 = 11;

/// Appends an entry record without building a [`Record`] first.
pub(crate) fn encode_entry(group: GroupId, entry: &LogRecord, restated: bool, out: &mut Vec<u8>) {
    let length = u32::try_from(8 + entry.payload.len()).expect("an entry fits a frame");
    out.put_u32_le(length);
    out.put_u8(ENTRY);
    out.put_u8(u8::from(restated));
    out.put_u16_le(0);
    out.put_u64_le(group.0);
    out.put_u64_le(entry.id.index);
    out.put_u64_le(entry.id.term.0);
    out.put_slice(&entry.payload);
}

impl Record {
    /// Bytes it takes, or a few more.
    pub(crate) fn size_bound(&self) -> usize {
        RECORD_HEADER
            + match self {
                Record::Entry { entry, .. } => 8 + entry.payload.len(),
                Record::Vote(_) => 24,
                Record::Committed(_) | Record::TruncateFrom { .. } | Record::PurgedTo(_) => 24,
                Record::Base(mark) => base_bound(mark),
                Record::Install { mark, .. } => 48 + base_bound(&mark.base) + mark.membership.len(),
                Record::GroupState(state) => 128 + state.base.as_ref().map_or(0, base_bound),
                Record::GroupDropped | Record::Floor(_) | Record::Seal(_) => 0,
            }
    }

    /// Appends the record to a frame.
    pub(crate) fn encode(&self, group: GroupId, out: &mut Vec<u8>) {
        let start = out.len();
        let (kind, flags, index) = self.head();
        out.put_u32_le(0);
        out.put_u8(kind);
        out.put_u8(flags);
        out.put_u16_le(0);
        out.put_u64_le(group.0);
        out.put_u64_le(index);
        self.encode_payload(out);
        let length = u32::try_from(out.len() - start - RECORD_HEADER)
            .expect("frames are far below 4 GiB, and records lie within one");
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn head(&self) -> (u8, u8, u64) {
        match self {
            Record::Entry { entry, restated } => (ENTRY, u8::from(*restated), entry.id.index),
            Record::Vote(_) => (VOTE, 0, 0),
            Record::Committed(id) => (COMMITTED, 0, id.index),
            Record::TruncateFrom { from, .. } => (TRUNCATE, 0, *from),
            Record::PurgedTo(id) => (PURGED, 0, id.index),
            Record::Base(mark) => (BASE, 0, mark.at.index),
            Record::Install { mark, keeps_log } => {
                (INSTALL, u8::from(*keeps_log), mark.snapshot.index)
            }
            Record::GroupState(_) => (GROUP_STATE, 0, 0),
            Record::GroupDropped => (GROUP_DROPPED, 0, 0),
            Record::Floor(first) => (FLOOR, 0, *first),
            Record::Seal(seal) => (SEAL, *seal as u8, 0),
        }
    }

    fn encode_payload(&self, out: &mut Vec<u8>) {
        match self {
            Record::Entry { entry, .. } => {
                out.put_u64_le(entry.id.term.0);
                out.put_slice(&entry.payload);
            }
            Record::Vote(vote) => put_vote(out, vote),
            Record::Committed(id) | Record::PurgedTo(id) => out.put_u64_le(id.term.0),
            Record::TruncateFrom { last, .. } => put_option(out, last.as_ref(), put_id),
            Record::Base(mark) => put_base(out, mark),
            Record::Install { mark, .. } => {
                out.put_u64_le(mark.snapshot.term.0);
                out.put_u64_le(mark.generation);
                put_base(out, &mark.base);
                out.put_slice(&mark.membership);
            }
            Record::GroupState(state) => {
                put_option(out, state.vote.as_ref(), put_vote);
                put_option(out, state.committed.as_ref(), put_id);
                put_option(out, state.purged.as_ref(), put_id);
                put_option(out, state.last.as_ref(), put_id);
                put_option(out, state.base.as_ref(), put_base);
                out.put_u64_le(state.generation);
            }
            Record::GroupDropped | Record::Floor(_) | Record::Seal(_) => {}
        }
    }

    /// Reads the record at the start of `bytes`, a frame's own; also how many bytes it takes.
    pub(crate) fn decode(bytes: &Bytes) -> Option<(GroupId, Record, usize)> {
        let mut head = bytes.get(..RECORD_HEADER)?;
        let length = head.get_u32_le() as usize;
        let kind = head.get_u8();
        let flags = head.get_u8();
        head.advance(2);
        let group = GroupId(head.get_u64_le());
        let index = head.get_u64_le();
        let end = RECORD_HEADER.checked_add(length)?;
        if end > bytes.len() {
            return None;
        }
        let mut payload = bytes.slice(RECORD_HEADER..end);
        let record = decode_payload(kind, flags, index, &mut payload)?;
        if !payload.is_empty() {
            return None;
        }
        Some((group, record, end))
    }
}

fn decode_payload(kind: u8, flags: u8, index: u64, payload: &mut Bytes) -> Option<Record> {
    let flag = match (kind, flags) {
        (_, 0) => false,
        (ENTRY | INSTALL, 1) => true,
        (SEAL, 1) => return Some(Record::Seal(Seal::Closing)),
        (SEAL, 2) => return Some(Record::Seal(Seal::Continued)),
        _unknown => return None,
    };
    Some(match kind {
        ENTRY => Record::Entry {
            entry: LogRecord {
                id: LogId::new(payload.try_get_u64_le().ok()?, index),
                payload: std::mem::take(payload),
            },
            restated: flag,
        },
        VOTE => Record::Vote(get_vote(payload)?),
        COMMITTED => Record::Committed(LogId::new(payload.try_get_u64_le().ok()?, index)),
        TRUNCATE => Record::TruncateFrom { from: index, last: get_option(payload, get_id)? },
        PURGED => Record::PurgedTo(LogId::new(payload.try_get_u64_le().ok()?, index)),
        BASE => Record::Base(get_base(payload)?),
        INSTALL => {
            let snapshot = LogId::new(payload.try_get_u64_le().ok()?, index);
            let generation = payload.try_get_u64_le().ok()?;
            let base = get_base(payload)?;
            let mark =
                InstallMark { snapshot, generation, base, membership: std::mem::take(payload) };
            Record::Install { mark, keeps_log: flag }
        }
        GROUP_STATE => Record::GroupState(GroupState {
            vote: get_option(payload, get_vote)?,
            committed: get_option(payload, get_id)?,
            purged: get_option(payload, get_id)?,
            last: get_option(payload, get_id)?,
            base: get_option(payload, get_base)?,
            generation: payload.try_get_u64_le().ok()?,
        }),
        GROUP_DROPPED => Record::GroupDropped,
        FLOOR => Record::Floor(index),
        SEAL => Record::Seal(Seal::Idle),
        _unknown => return None,
    })
}

fn base_bound(mark: &BaseMark) -> usize {
    48 + mark.file_name.len()
}

fn put_option<T>(out: &mut Vec<u8>, value: Option<&T>, put: fn(&mut Vec<u8>, &T)) {
    out.put_u8(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

fn get_option<T>(from: &mut Bytes, get: fn(&mut Bytes) -> Option<T>) -> Option<Option<T>> {
    match from.try_get_u8().ok()? {
        0 => Some(None),
        1 => get(from).map(Some),
        _unknown => None,
    }
}

fn put_id(out: &mut Vec<u8>, id: &LogId) {
    out.put_u64_le(id.term.0);
    out.put_u64_le(id.index);
}

fn get_id(from: &mut Bytes) -> Option<LogId> {
    let term = from.try_get_u64_le().ok()?;
    Some(LogId::new(term, from.try_get_u64_le().ok()?))
}

fn put_vote(out: &mut Vec<u8>, vote: &Vote) {
    out.put_u64_le(vote.term);
    out.put_u8(u8::from(vote.committed));
    put_option(out, vote.voted_for.as_ref(), |out, member| {
        out.put_u64_le(member.0);
    });
}

fn get_vote(from: &mut Bytes) -> Option<Vote> {
    let term = from.try_get_u64_le().ok()?;
    let committed = from.try_get_u8().ok()? == 1;
    let voted_for = get_option(from, |from| from.try_get_u64_le().ok().map(MemberId))?;
    Some(Vote { term, voted_for, committed })
}

fn put_base(out: &mut Vec<u8>, mark: &BaseMark) {
    put_id(out, &mark.at);
    out.put_u64_le(mark.generation);
    out.put_u64_le(mark.len);
    out.put_u64_le(mark.content_hash);
    out.put_u16_le(u16::try_from(mark.file_name.len()).expect("file names are short"));
    out.put_slice(mark.file_name.as_bytes());
}

fn get_base(from: &mut Bytes) -> Option<BaseMark> {
    let at = get_id(from)?;
    let generation = from.try_get_u64_le().ok()?;
    let len = from.try_get_u64_le().ok()?;
    let content_hash = from.try_get_u64_le().ok()?;
    let name = usize::from(from.try_get_u16_le().ok()?);
    if name > from.len() {
        return None;
    }
    let file_name = String::from_utf8(from.split_to(name).to_vec()).ok()?;
    Some(BaseMark { at, generation, file_name, len, content_hash })
}
