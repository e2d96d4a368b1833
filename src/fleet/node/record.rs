//! `node.json`: where this node stands, in words that a person can read and a start goes on from.
//!
//! ```text
//!   {"format":1,"phase":{"kind":"joining","uid":"…","name":"n2","address":"…","admitted":{"id":"…","members":[…]}}}
//! ```
//!
//! **Invariant:** no secret is in it. **Invariant:** a format that this software does not know is refused, not guessed.

use serde::{Deserialize, Serialize};

use super::launcher::InitialNode;

/// The format that is written. Older ones are read for ever, newer ones are refused.
const FORMAT: u32 = 1;

/// What `node.json` holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalRecord {
    /// Of this record.
    pub format: u32,
    /// Where the node stands.
    pub phase: Phase,
}

/// Where a node stands. Member ids are in lower hex, as etcdctl prints them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Phase {
    /// Part of nothing.
    Uninitialised {
        /// Why it is none any more, if it once was: `removed`, or what a start was undone for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<String>,
    },
    /// Its own fleet is being made. At a start: finished if the log holds the fleet, else undone.
    Bootstrapping {
        /// The fleet's UUID.
        uid: String,
        /// The node's name.
        name: String,
        /// `host:port` of its API.
        address: String,
    },
    /// It is on its way into a fleet. At a start: gone on with if it was admitted and still is listed, else undone.
    Joining(Joining),
    /// It runs a member.
    Member {
        /// The fleet's UUID.
        uid: String,
        /// The node's name.
        name: String,
        /// `host:port` of its API.
        address: String,
        /// Its member id.
        id: String,
        /// With whom its member began; empty if it began alone.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        members: Vec<InitialNode>,
    },
    /// It passes on what clients ask.
    Worker {
        /// The fleet's UUID.
        uid: String,
        /// The node's name.
        name: String,
        /// `host:port` of its API.
        address: String,
        /// Its id in the registry.
        id: String,
        /// `host:port` of the API of nodes that hold replicas, as far as it knows.
        apis: Vec<String>,
        /// Client URLs of those.
        endpoints: Vec<String>,
    },
    /// Its directories are being emptied, for this reason. At a start: gone on with.
    Resetting {
        /// Kept as `since` of what follows.
        reason: String,
    },
}

/// A node on its way into a fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Joining {
    /// The fleet's UUID.
    pub uid: String,
    /// The node's name.
    pub name: String,
    /// `host:port` of its API.
    pub address: String,
    /// Its id, once the fleet has admitted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// It is to be a worker: it has no member.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_worker: bool,
    /// `host:port` of the APIs that the token named.
    pub apis: Vec<String>,
    /// With whom its member begins, itself included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<InitialNode>,
}

/// `node.json` cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// It is not what this software writes.
    #[error("node.json does not read: {0}")]
    Unreadable(String),
    /// It is of a later version of this software.
    #[error(
        "node.json has format {0}, this software knows {FORMAT}: start the version that wrote it"
    )]
    Newer(u32),
}

impl LocalRecord {
    /// A record of the present format.
    pub fn new(phase: Phase) -> Self {
        LocalRecord { format: FORMAT, phase }
    }

    /// Reads what [`LocalRecord::encode`] has written.
    pub fn decode(text: &str) -> Result<LocalRecord, RecordFault> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let unreadable = |why: serde_json::Error| RecordFault::Unreadable(why.to_string());
        let head: Head = serde_json::from_str(text).map_err(unreadable)?;
        if head.format > FORMAT {
            return Err(RecordFault::Newer(head.format));
        }
        serde_json::from_str(text).map_err(unreadable)
    }

    /// As text, one line more than JSON.
    pub fn encode(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("strings and lists become JSON");
        text.push('\n');
        text
    }
}

impl Phase {
    /// A word for logs and status.
    pub fn word(&self) -> &'static str {
        match self {
            Phase::Uninitialised { .. } => "uninitialised",
            Phase::Bootstrapping { .. } => "bootstrapping",
            Phase::Joining(_) => "joining",
            Phase::Member { .. } => "member",
            Phase::Worker { .. } => "worker",
            Phase::Resetting { .. } => "resetting",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_phase() -> Vec<Phase> {
        let text = |text: &str| text.to_owned();
        let first = InitialNode { name: text("n1"), peer_urls: vec![text("https://h:1")] };
        vec![
            Phase::Uninitialised { since: None },
            Phase::Uninitialised { since: Some(text("removed")) },
            Phase::Bootstrapping { uid: text("u"), name: text("n1"), address: text("h:6400") },
            Phase::Joining(Joining {
                uid: text("u"),
                name: text("n2"),
                address: text("h:6401"),
                id: Some(text("8e9e05c52164694d")),
                is_worker: false,
                apis: vec![text("h:6400")],
                members: vec![first.clone()],
            }),
            Phase::Joining(Joining {
                uid: text("u"),
                name: text("w"),
                address: text("h:6402"),
                id: Some(text("7")),
                is_worker: true,
                apis: vec![text("h:6400")],
                members: Vec::new(),
            }),
            Phase::Member {
                uid: text("u"),
                name: text("n2"),
                address: text("h:6401"),
                id: text("8e9e05c52164694d"),
                members: vec![first],
            },
            Phase::Worker {
                uid: text("u"),
                name: text("w"),
                address: text("h:6402"),
                id: text("7"),
                apis: vec![text("h:6400")],
                endpoints: vec![text("https://h:2379")],
            },
            Phase::Resetting { reason: text("removed") },
        ]
    }

    #[test]
    fn every_phase_is_read_back_as_it_was_written() {
        for phase in every_phase() {
            let record = LocalRecord::new(phase);
            assert_eq!(LocalRecord::decode(&record.encode()), Ok(record));
        }
    }

    #[test]
    fn a_later_format_and_what_does_not_read_are_refused() {
        let later = r#"{"format":2,"phase":{"kind":"dreaming"}}"#;
        assert_eq!(LocalRecord::decode(later), Err(RecordFault::Newer(2)));
        for bad in ["", "{}", r#"{"format":1,"phase":{"kind":"dreaming"}}"#] {
            assert!(matches!(LocalRecord::decode(bad), Err(RecordFault::Unreadable(_))), "{bad}");
        }
    }
}
