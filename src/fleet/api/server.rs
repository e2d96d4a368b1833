//! The envelope around every answer, and the rows that a daemon has of its own: itself, operations, events, audit.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::super::management::Phase;

/// LXD's envelope. `metadata` is the row's answer, an [`Operation`], or absent in an error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Envelope {
    /// What kind of answer it is.
    #[serde(rename = "type")]
    pub kind: AnswerKind,
    /// `Success`, `Operation created`; empty in an error.
    pub status: String,
    /// 200, 100; 0 in an error.
    pub status_code: u16,
    /// `/1.0/operations/<uuid>`; empty if it is not asynchronous.
    pub operation: String,
    /// The HTTP status in an error, else 0.
    pub error_code: u16,
    /// Why; empty if it is no error.
    pub error: String,
    /// What was asked for.
    pub metadata: Value,
}

/// Kinds of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AnswerKind {
    /// Done.
    Sync,
    /// Begun: ask the operation.
    Async,
    /// Refused or failed.
    Error,
}

/// `GET /1.0`: who answers. Told to anybody; what only members may know is left out then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerInfo {
    /// `1.0`.
    pub api_version: String,
    /// `stable`.
    pub api_status: String,
    /// Whether whoever asks is trusted: `trusted` or `untrusted`.
    pub auth: String,
    /// The daemon's version.
    pub server_version: String,
    /// What the daemon is at.
    pub phase: Phase,
    /// The node's name; empty before it has one.
    pub name: String,
    /// `host:port` of its API; empty before it has one.
    pub address: String,
    /// Whether it is in a fleet and can be asked for everything.
    pub ready: bool,
    /// The fleet's UUID; empty before there is one.
    pub cluster_uid: String,
    /// What this daemon has beyond the origin's API.
    pub api_extensions: Vec<String>,
}

/// How far an operation is: LXD's numbers; from 200 on it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub enum OperationStatus {
    /// 105: not begun.
    Pending,
    /// 103: under way.
    Running,
    /// 104: asked to stop, still under way.
    Cancelling,
    /// 200: done.
    Success,
    /// 400: refused or failed.
    Failure,
    /// 401: stopped before it was done.
    Cancelled,
}

impl OperationStatus {
    /// LXD's number.
    pub fn code(self) -> u16 {
        match self {
            OperationStatus::Running => 103,
            OperationStatus::Cancelling => 104,
            OperationStatus::Pending => 105,
            OperationStatus::Success => 200,
            OperationStatus::Failure => 400,
            OperationStatus::Cancelled => 401,
        }
    }

    /// Whether nothing more will happen.
    pub fn is_final(self) -> bool {
        self.code() >= 200
    }
}

/// Something that goes on while nobody waits for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Operation {
    /// A UUID.
    pub id: String,
    /// `task`.
    pub class: String,
    /// What it does: `bootstrap`, `join`, `remove`, `refresh-certs`.
    pub description: String,
    /// RFC 3339.
    #[schema(format = "date-time")]
    pub created_at: String,
    /// RFC 3339: the last change.
    #[schema(format = "date-time")]
    pub updated_at: String,
    /// How far it is.
    pub status: OperationStatus,
    /// The same as a number.
    pub status_code: u16,
    /// What it is about, and when it is done, what the row answers (`result`): what was observed, not what was asked.
    pub metadata: Option<Value>,
    /// Whether `DELETE` stops it.
    pub may_cancel: bool,
    /// Why it failed; empty if it did not.
    pub err: String,
    /// The HTTP status that the row would have answered with; 0 while it is under way.
    pub err_code: u16,
}

/// `GET /1.0/events`: something happened on this node. Numbers rise by one, and begin anew when the daemon does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Its number, from 1; the `id` of the server-sent event.
    pub sequence: u64,
    /// `lifecycle`, `progress`, `operation`, `audit`, `lost`.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// RFC 3339.
    #[schema(format = "date-time")]
    pub timestamp: String,
    /// What it says, by its kind.
    pub metadata: Value,
}

/// Kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// The node's phase, or a node of the fleet, changed.
    Lifecycle,
    /// A step of something that takes its time.
    Progress,
    /// An [`Operation`] changed.
    Operation,
    /// A call that changes something was answered.
    Audit,
    /// Events that were asked for are not kept any more: how many.
    Lost,
}

impl EventKind {
    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            EventKind::Lifecycle => "lifecycle",
            EventKind::Progress => "progress",
            EventKind::Operation => "operation",
            EventKind::Audit => "audit",
            EventKind::Lost => "lost",
        }
    }
}

/// `GET /1.0/audit`: one call that changes something, as it stands in `audit.log`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditRecord {
    /// RFC 3339.
    #[schema(format = "date-time")]
    pub time: String,
    /// Who asked: `unix`, `certificate:<name>`, `capi`, `node-token`, `worker:<name>`, `anonymous`, `daemon`.
    pub actor: String,
    /// The call: `bootstrap`, `remove`.
    pub operation: String,
    /// What it was about: a node's name, a user. Never a secret.
    pub object: String,
    /// `asked`, then `done` or why not.
    pub result: String,
    /// The HTTP status; 0 while it is asked.
    pub code: u16,
    /// The same in both lines of a call.
    pub request_id: String,
}

/// `GET /livez`, `/readyz`, `/health`: bare, as probes want it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `true` or `false`, as etcd spells it.
    pub health: String,
    /// Why not; empty if it is.
    pub reason: String,
}

/// `GET /version`: bare, as etcd has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VersionAnswer {
    /// The version that we claim to etcd's clients.
    pub etcdserver: String,
    /// The cluster's version; `not_decided` while there is none.
    pub etcdcluster: String,
    /// Ours.
    pub quorate: String,
}
