//! The node as the API asks it: each call leads to the one who does it, in the time that it has.

use async_trait::async_trait;

use super::life::{Node, within};
use crate::fleet::api::Sensitive;
use crate::fleet::api::auth::{AuthTokenRequest, TokenUser};
use crate::fleet::api::certificates::{
    CertificatesStatus, ExpiryAnswer, RefreshPlan, RefreshPlanRequest, RefreshRunAnswer,
    RefreshRunRequest, RefreshUpdateRequest,
};
use crate::fleet::api::cluster::{
    BootstrapRequest, ClusterStatus, IssuedToken, JoinRequest, JoinTokenRequest, NodeStatus,
    NodeStatusAnswer, RemoveRequest,
};
use crate::fleet::api::config::{ConfigAnswer, SetConfigRequest};
use crate::fleet::api::internal::{
    JoinAdmission, JoinAsk, LeaveAsk, RenewAnswer, RenewAsk, TrustAnswer, TrustAsk,
};
use crate::fleet::api::worker::{WorkerInfo, WorkerInfoRequest};
use crate::fleet::audit::AuditLog;
use crate::fleet::error::FleetError;
use crate::fleet::events::EventLog;
use crate::fleet::management::{Condition, Identity, Management, Phase};

impl Node {
    fn limit(&self) -> std::time::Duration {
        self.0.settings.timers.call
    }
}

#[async_trait]
impl Management for Node {
    fn phase(&self) -> Phase {
        self.stage().phase()
    }

    fn identity(&self) -> Identity {
        self.tell_identity()
    }

    fn not_alive(&self) -> Option<String> {
        self.tell_not_alive()
    }

    async fn condition(&self) -> Condition {
        self.tell_condition().await
    }

    fn events(&self) -> &EventLog {
        &self.0.events
    }

    fn audit(&self) -> &AuditLog {
        &self.0.audit
    }

    async fn cluster_status(&self) -> Result<ClusterStatus, FleetError> {
        within(self.limit(), "the status", self.tell_cluster()).await
    }

    async fn bootstrap(&self, request: BootstrapRequest) -> Result<NodeStatus, FleetError> {
        let limit = request.timeout.or(self.limit());
        let beginning = self.check_beginning(&request, Vec::new())?;
        self.begin(beginning, limit).await
    }

    async fn node_status(&self) -> Result<NodeStatusAnswer, FleetError> {
        self.tell_node().await
    }

    async fn join_token(&self, request: JoinTokenRequest) -> Result<Sensitive, FleetError> {
        within(self.limit(), "the token", self.make_join_token(request)).await
    }

    async fn join_tokens(&self) -> Result<Vec<IssuedToken>, FleetError> {
        within(self.limit(), "the tokens", self.list_join_tokens()).await
    }

    async fn join(&self, request: JoinRequest) -> Result<(), FleetError> {
        self.join_fleet(request).await
    }

    async fn remove(&self, request: RemoveRequest) -> Result<(), FleetError> {
        let limit = request.timeout.or(self.limit());
        within(limit, "the removal", self.remove_node(request)).await
    }

    async fn config(&self) -> Result<ConfigAnswer, FleetError> {
        within(self.limit(), "the config", self.tell_config()).await
    }

    async fn set_config(&self, request: SetConfigRequest) -> Result<(), FleetError> {
        within(self.limit(), "the config", self.change_config(request)).await
    }

    async fn worker_info(
        &self,
        name: &str,
        token: &Sensitive,
        request: WorkerInfoRequest,
    ) -> Result<WorkerInfo, FleetError> {
        within(self.limit(), "letting the worker in", self.admit_worker(name, token, request)).await
    }

    async fn plan_certificates(&self, ask: RefreshPlanRequest) -> Result<RefreshPlan, FleetError> {
        self.plan_renewal(ask)
    }

    async fn run_certificates(
        &self,
        ask: RefreshRunRequest,
    ) -> Result<RefreshRunAnswer, FleetError> {
        within(self.limit(), "the renewal", self.run_renewal(ask)).await
    }

    async fn update_certificates(&self, ask: RefreshUpdateRequest) -> Result<(), FleetError> {
        within(self.limit(), "the certificates", self.put_certificates(&ask)).await
    }

    async fn certificates_status(&self) -> Result<CertificatesStatus, FleetError> {
        within(self.limit(), "the status", self.tell_certificates()).await
    }

    async fn certificates_expiry(&self) -> Result<ExpiryAnswer, FleetError> {
        within(self.limit(), "the status", self.tell_expiry()).await
    }

    async fn issue_auth_token(&self, request: AuthTokenRequest) -> Result<Sensitive, FleetError> {
        within(self.limit(), "the token", self.make_auth_token(request)).await
    }

    async fn revoke_auth_token(&self, token: &Sensitive) -> Result<(), FleetError> {
        within(self.limit(), "the revocation", self.forget_auth_token(token)).await
    }

    async fn review_token(&self, token: &Sensitive) -> Result<Option<TokenUser>, FleetError> {
        within(self.limit(), "the review", self.owner_of(token)).await
    }

    async fn set_capi_token(&self, token: &Sensitive) -> Result<(), FleetError> {
        within(self.limit(), "the token", self.put_capi_token(token)).await
    }

    async fn check_capi_token(&self, token: &Sensitive) -> Result<bool, FleetError> {
        within(self.limit(), "the token", self.is_capi_token(token)).await
    }

    async fn check_node_token(&self, token: &Sensitive) -> Result<bool, FleetError> {
        self.is_node_token(token)
    }

    async fn admit(&self, ask: JoinAsk) -> Result<JoinAdmission, FleetError> {
        self.admit_node(ask).await
    }

    async fn hear(&self, who: &str, ask: TrustAsk) -> Result<TrustAnswer, FleetError> {
        within(self.limit(), "the report", self.hear_trust(who, ask)).await
    }

    async fn renew(&self, who: &str, ask: RenewAsk) -> Result<RenewAnswer, FleetError> {
        within(self.limit(), "the renewal", self.renew_worker(who, ask)).await
    }

    async fn leave(&self, who: &str, ask: LeaveAsk) -> Result<(), FleetError> {
        within(self.limit(), "leaving", self.let_go(who, ask)).await
    }
}
