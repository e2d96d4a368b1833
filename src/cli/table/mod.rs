//! The one table of flags: name, kind, default, config-file key, standing, help. Parser, config file, help and
//! documentation are all made from it. The names, defaults and keys are etcd 3.7's (`server/embed/config.go`).
//!
//! The environment variable of a flag is `ETCD_` and its name in upper case with `_` for `-`.

mod clustering;
mod logging;
mod member;
mod security;
mod tuning;

use crate::support::flags::{FlagSpec, Kind};

/// Where a flag is listed in the help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// This process: name, directory, listeners, limits.
    Member,
    /// Who the members are and how they behave together.
    Clustering,
    /// Certificates, origins, hosts.
    Security,
    /// Users and tokens.
    Auth,
    /// Metrics, profiling, tracing.
    Monitoring,
    /// Log lines.
    Logging,
    /// Checks, compaction, progress.
    Features,
    /// What may lose data.
    Unsafe,
    /// Ours alone.
    Quorate,
    /// Old names that are taken and not listed.
    Hidden,
}

impl Group {
    /// The groups of the help, in order.
    pub const LISTED: [Group; 9] = [
        Group::Member,
        Group::Clustering,
        Group::Security,
        Group::Auth,
        Group::Monitoring,
        Group::Logging,
        Group::Features,
        Group::Unsafe,
        Group::Quorate,
    ];

    /// The heading.
    pub fn title(self) -> &'static str {
        match self {
            Group::Member => "Member",
            Group::Clustering => "Clustering",
            Group::Security => "Security",
            Group::Auth => "Auth",
            Group::Monitoring => "Profiling and Monitoring",
            Group::Logging => "Logging",
            Group::Features => "Features",
            Group::Unsafe => "Unsafe feature",
            Group::Quorate => "Quorate",
            Group::Hidden => "Hidden",
        }
    }
}

/// How a config file names a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// By its own name.
    Same,
    /// `second` inside the mapping `first`.
    In(&'static str, &'static str),
    /// `third` inside `second` inside `first`.
    Deep(&'static str, &'static str, &'static str),
    /// `fourth` inside `third` inside `second` inside `first`.
    Deepest(&'static str, &'static str, &'static str, &'static str),
    /// Not at all.
    None,
}

/// What we do with a flag that is not at its default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// What it says.
    Honoured,
    /// Nothing, and one warning says so: it means something only to etcd's own storage or runtime.
    NoEffect,
    /// Nothing: it only matters together with a flag that is refused, or has been ignored by etcd for years.
    Silent,
}

/// One flag.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its name without dashes.
    pub name: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// Its default as one would write it.
    pub default: &'static str,
    /// Its name in a config file.
    pub key: Key,
    /// Whether it does anything.
    pub standing: Standing,
    /// Where the help lists it.
    pub group: Group,
    /// No log may hold its value.
    pub secret: bool,
    /// One sentence for whoever sets it.
    pub help: &'static str,
}

impl Row {
    const fn new(group: Group, name: &'static str, kind: Kind, default: &'static str) -> Row {
        let standing = Standing::Honoured;
        Row { name, kind, default, key: Key::Same, standing, group, secret: false, help: "" }
    }

    const fn help(self, help: &'static str) -> Row {
        Row { help, ..self }
    }

    const fn no_effect(self) -> Row {
        Row { standing: Standing::NoEffect, ..self }
    }

    const fn silent(self) -> Row {
        Row { standing: Standing::Silent, ..self }
    }

    const fn key(self, key: Key) -> Row {
        Row { key, ..self }
    }

    const fn secret(self) -> Row {
        Row { secret: true, ..self }
    }

    /// What the mechanism needs of it.
    pub fn spec(&self) -> FlagSpec {
        FlagSpec { name: self.name, kind: self.kind, default: self.default }
    }

    /// Its environment variable.
    pub fn variable(&self) -> String {
        variable(self.name)
    }
}

/// The environment variable of the flag `name`.
pub fn variable(name: &str) -> String {
    format!("ETCD_{}", name.to_ascii_uppercase().replace('-', "_"))
}

/// Stands for a secret.
pub(super) const REDACTED: &str = "[redacted]";

/// Whether no log may hold the value of the flag `name`, unlike in etcd.
pub(super) fn is_secret(name: &str) -> bool {
    rows().any(|row| row.secret && row.name == name)
}

/// Every flag.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    member::ROWS
        .iter()
        .chain(&clustering::ROWS)
        .chain(&security::ROWS)
        .chain(&logging::ROWS)
        .chain(&tuning::ROWS)
        .chain(&tuning::LEGACY)
}

/// Where a flag of etcd 3.5 and 3.6 went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twin {
    /// To the flag of this name.
    Flag(&'static str),
    /// To the feature gate of this name.
    Gate(&'static str),
}

/// The `--experimental-*` spellings that etcd 3.7 dropped and old unit files still pass, without the prefix.
pub const EXPERIMENTAL: [(&str, Twin); 24] = [
    ("experimental-initial-corrupt-check", Twin::Gate("InitialCorruptCheck")),
    ("experimental-compact-hash-check-enabled", Twin::Gate("CompactHashCheck")),
    ("experimental-enable-lease-checkpoint", Twin::Gate("LeaseCheckpoint")),
    ("experimental-enable-lease-checkpoint-persist", Twin::Gate("LeaseCheckpointPersist")),
    ("experimental-stop-grpc-service-on-defrag", Twin::Gate("StopGRPCServiceOnDefrag")),
    ("experimental-txn-mode-write-with-shared-buffer", Twin::Gate("TxnModeWriteWithSharedBuffer")),
    ("experimental-set-member-localaddr", Twin::Gate("SetMemberLocalAddr")),
    ("experimental-corrupt-check-time", Twin::Flag("corrupt-check-time")),
    ("experimental-compact-hash-check-time", Twin::Flag("compact-hash-check-time")),
    ("experimental-compaction-batch-limit", Twin::Flag("compaction-batch-limit")),
    ("experimental-compaction-sleep-interval", Twin::Flag("compaction-sleep-interval")),
    ("experimental-watch-progress-notify-interval", Twin::Flag("watch-progress-notify-interval")),
    ("experimental-downgrade-check-time", Twin::Flag("downgrade-check-time")),
    ("experimental-warning-apply-duration", Twin::Flag("warning-apply-duration")),
    ("experimental-warning-unary-request-duration", Twin::Flag("warning-unary-request-duration")),
    (
        "experimental-bootstrap-defrag-threshold-megabytes",
        Twin::Flag("bootstrap-defrag-threshold-megabytes"),
    ),
    ("experimental-memory-mlock", Twin::Flag("memory-mlock")),
    ("experimental-max-learners", Twin::Flag("max-learners")),
    ("experimental-snapshot-catchup-entries", Twin::Flag("snapshot-catchup-entries")),
    (
        "experimental-peer-skip-client-san-verification",
        Twin::Flag("peer-skip-client-san-verification"),
    ),
    ("experimental-enable-distributed-tracing", Twin::Flag("enable-distributed-tracing")),
    ("experimental-distributed-tracing-address", Twin::Flag("distributed-tracing-address")),
    (
        "experimental-distributed-tracing-service-name",
        Twin::Flag("distributed-tracing-service-name"),
    ),
    ("experimental-backend-bbolt-freelist-type", Twin::Flag("backend-bbolt-freelist-type")),
];

impl Twin {
    /// The old spelling takes what its twin takes, and is empty until it is used.
    pub(super) fn spec(self, name: &'static str) -> FlagSpec {
        let kind = match self {
            Twin::Gate(_) => Kind::Bool,
            Twin::Flag(twin) => {
                rows().find(|row| row.name == twin).expect("a test reads every twin").kind
            }
        };
        FlagSpec { name, kind, default: "" }
    }
}

#[cfg(test)]
#[path = "table_test.rs"]
mod tests;
