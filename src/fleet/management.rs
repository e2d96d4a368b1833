//! Everything that the `/1.0/` API asks of a node.
//!
//! ```text
//!   HTTP ──> handlers: decode, trust, phase, audit, envelope ──> dyn Management ──> the node
//! ```
//!
//! **Invariant:** an implementation need not look at headers, certificates or JSON, and the handlers hold no rule of the
//! fleet.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::api::Sensitive;
use super::api::auth::{AuthTokenRequest, TokenUser};
use super::api::certificates::{
    CertificatesStatus, ExpiryAnswer, RefreshPlan, RefreshPlanRequest, RefreshRunAnswer,
    RefreshRunRequest, RefreshUpdateRequest,
};
use super::api::cluster::{
    BootstrapRequest, ClusterStatus, IssuedToken, JoinRequest, JoinTokenRequest, NodeStatus,
    NodeStatusAnswer, RemoveRequest,
};
use super::api::config::{ConfigAnswer, SetConfigRequest};
use super::api::internal::{
    JoinAdmission, JoinAsk, LeaveAsk, RenewAnswer, RenewAsk, TrustAnswer, TrustAsk,
};
use super::api::worker::{WorkerInfo, WorkerInfoRequest};
use super::audit::AuditLog;
use super::error::FleetError;
use super::events::EventLog;

/// What a daemon is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// In no fleet; may bootstrap or join.
    Uninitialized,
    /// Forming a fleet.
    Bootstrapping,
    /// Being let in.
    Joining,
    /// A node of the control plane.
    ControlPlane,
    /// A worker.
    Worker,
    /// On its way out of its fleet, or out of a start that failed: what it had is being wiped.
    Resetting,
    /// Taken out of its fleet, and wiped: may bootstrap or join.
    Removed,
    /// On its way out.
    Stopping,
}

/// Who the daemon is, for `GET /1.0`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The node's name; empty before it has one.
    pub name: String,
    /// `host:port` of its API; empty before it has one.
    pub address: String,
    /// The fleet's UUID; empty before there is one.
    pub cluster_uid: String,
}

/// How the member is doing, for probes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// Why nothing should be sent here, if nothing should. A daemon that waits to be told what to do is ready.
    pub not_ready: Option<String>,
    /// Why a linearizable read does not pass, if none does. A daemon in no fleet has none.
    pub not_healthy: Option<String>,
}

/// One node, as the API sees it. Each call is bounded by the `timeout` of its request, or by what the node thinks right.
///
/// The handlers have looked at [`phase`](Management::phase) before they call: what needs a fleet is called in
/// [`Phase::ControlPlane`] (and [`Phase::Worker`] where workers answer, too). It may have changed since.
#[async_trait]
pub trait Management: Send + Sync + 'static {
    /// What the daemon is at.
    fn phase(&self) -> Phase;

    /// Who the daemon is.
    fn identity(&self) -> Identity;

    /// Why the process should be restarted, if it should. Nobody else is asked for that.
    fn not_alive(&self) -> Option<String>;

    /// How it is doing; answers within a probe's time.
    async fn condition(&self) -> Condition;

    /// What happens on this node.
    fn events(&self) -> &EventLog;

    /// Where calls that change something are noted.
    fn audit(&self) -> &AuditLog;

    /// `GET k8sd/cluster`.
    async fn cluster_status(&self) -> Result<ClusterStatus, FleetError>;

    /// `POST k8sd/cluster`. A second one: [`FleetError::AlreadyBootstrapped`].
    async fn bootstrap(&self, request: BootstrapRequest) -> Result<NodeStatus, FleetError>;

    /// `GET k8sd/node`; in every phase.
    async fn node_status(&self) -> Result<NodeStatusAnswer, FleetError>;

    /// `POST k8sd/cluster/tokens`, `x/capi/generate-join-token`.
    async fn join_token(&self, request: JoinTokenRequest) -> Result<Sensitive, FleetError>;

    /// `GET tokens`: the join tokens that count, by name.
    async fn join_tokens(&self) -> Result<Vec<IssuedToken>, FleetError>;

    /// `POST k8sd/cluster/join`. In a fleet already: [`FleetError::NodeInUse`].
    async fn join(&self, request: JoinRequest) -> Result<(), FleetError>;

    /// `POST k8sd/cluster/remove`, `x/capi/remove-node`.
    async fn remove(&self, request: RemoveRequest) -> Result<(), FleetError>;

    /// `GET k8sd/cluster/config`.
    async fn config(&self) -> Result<ConfigAnswer, FleetError>;

    /// `PUT k8sd/cluster/config`: merged, never lost to one at the same time.
    async fn set_config(&self, request: SetConfigRequest) -> Result<(), FleetError>;

    /// `POST k8sd/worker/info`: `name` and `token` are the headers'. A token that does not count:
    /// [`FleetError::Unauthorized`].
    async fn worker_info(
        &self,
        name: &str,
        token: &Sensitive,
        request: WorkerInfoRequest,
    ) -> Result<WorkerInfo, FleetError>;

    /// `POST k8sd/refresh-certs/plan`.
    async fn plan_certificates(&self, ask: RefreshPlanRequest) -> Result<RefreshPlan, FleetError>;

    /// `POST k8sd/refresh-certs/run`. A seed that no plan gave: [`FleetError::Invalid`].
    async fn run_certificates(
        &self,
        ask: RefreshRunRequest,
    ) -> Result<RefreshRunAnswer, FleetError>;

    /// `POST k8sd/refresh-certs/update`.
    async fn update_certificates(&self, ask: RefreshUpdateRequest) -> Result<(), FleetError>;

    /// `GET k8sd/certs-status`.
    async fn certificates_status(&self) -> Result<CertificatesStatus, FleetError>;

    /// `POST x/capi/certificates-expiry`.
    async fn certificates_expiry(&self) -> Result<ExpiryAnswer, FleetError>;

    /// `POST kubernetes/auth/tokens`. The groups are clean: sorted, each once, none empty.
    async fn issue_auth_token(&self, request: AuthTokenRequest) -> Result<Sensitive, FleetError>;

    /// `DELETE kubernetes/auth/tokens`. One that is unknown is gone already.
    async fn revoke_auth_token(&self, token: &Sensitive) -> Result<(), FleetError>;

    /// `POST kubernetes/auth/webhook`: whose the token is; `None`: nobody's.
    async fn review_token(&self, token: &Sensitive) -> Result<Option<TokenUser>, FleetError>;

    /// `POST x/capi/set-auth-token`.
    async fn set_capi_token(&self, token: &Sensitive) -> Result<(), FleetError>;

    /// Whether the header `capi-auth-token` counts: compared, in constant time. No token set: none counts.
    async fn check_capi_token(&self, token: &Sensitive) -> Result<bool, FleetError>;

    /// Whether the header `node-token` is this node's own.
    async fn check_node_token(&self, token: &Sensitive) -> Result<bool, FleetError>;

    /// `POST /internal/join`: by the token in it, and nothing else.
    async fn admit(&self, ask: JoinAsk) -> Result<JoinAdmission, FleetError>;

    /// `POST /internal/trust`, asked by the worker whose certificate names `who`: it reports its certificates, and hears
    /// whom the fleet trusts. Another's id, or one that was removed: [`FleetError::Forbidden`].
    async fn hear(&self, who: &str, ask: TrustAsk) -> Result<TrustAnswer, FleetError>;

    /// `POST /internal/renew`, asked by the same: a certificate in place of its own.
    async fn renew(&self, who: &str, ask: RenewAsk) -> Result<RenewAnswer, FleetError>;

    /// `POST /internal/leave`, asked by the node whose certificate names `who`. Another's id:
    /// [`FleetError::Forbidden`].
    async fn leave(&self, who: &str, ask: LeaveAsk) -> Result<(), FleetError>;
}
