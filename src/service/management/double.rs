//! A node that does as it is told, and remembers what it was asked.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::fleet::api::Sensitive;
use crate::fleet::api::auth::{AuthTokenRequest, TokenUser};
use crate::fleet::api::certificates::{
    CertificatesStatus, ExpiryAnswer, RefreshPlan, RefreshPlanRequest, RefreshRunAnswer,
    RefreshRunRequest, RefreshUpdateRequest,
};
use crate::fleet::api::cluster::{
    BootstrapRequest, ClusterStatus, FeatureStatus, IssuedToken, JoinRequest, JoinTokenRequest,
    NodeStatus, NodeStatusAnswer, RemoveRequest,
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

/// The one token that counts in `capi-auth-token` and `node-token`.
pub(super) const RIGHT: &str = "right";

/// The double.
pub(super) struct Double {
    phase: Mutex<Phase>,
    /// What every call is answered with, if not by a plain success.
    canned: Mutex<Option<Result<Value, FleetError>>>,
    ill: Mutex<Option<String>>,
    calls: Mutex<Vec<(&'static str, Value)>>,
    /// Calls wait for this, if there is one.
    gate: Mutex<Option<Arc<Notify>>>,
    events: EventLog,
    audit: AuditLog,
}

impl Double {
    /// In `phase`, with its audit log in `folder`.
    pub(super) fn new(phase: Phase, folder: &Path) -> Arc<Self> {
        Arc::new(Double {
            phase: Mutex::new(phase),
            canned: Mutex::default(),
            ill: Mutex::default(),
            calls: Mutex::default(),
            gate: Mutex::default(),
            events: EventLog::default(),
            audit: AuditLog::open(&folder.join("audit.log")).unwrap(),
        })
    }

    pub(super) fn answer_with(&self, canned: Result<Value, FleetError>) {
        *self.canned.lock() = Some(canned);
    }

    pub(super) fn fall_ill(&self, why: &str) {
        *self.ill.lock() = Some(why.to_owned());
    }

    pub(super) fn hold_calls(&self) -> Arc<Notify> {
        let gate = Arc::new(Notify::new());
        *self.gate.lock() = Some(gate.clone());
        gate
    }

    pub(super) fn calls(&self) -> Vec<(&'static str, Value)> {
        self.calls.lock().clone()
    }

    async fn reply<T: DeserializeOwned>(
        &self,
        call: &'static str,
        asked: impl Serialize,
        plain: impl FnOnce() -> T,
    ) -> Result<T, FleetError> {
        self.calls.lock().push((call, serde_json::to_value(asked).unwrap()));
        let gate = self.gate.lock().clone();
        if let Some(gate) = gate {
            gate.notified().await;
        }
        match self.canned.lock().clone() {
            None => Ok(plain()),
            Some(Ok(answer)) => Ok(serde_json::from_value(answer).expect("the canned answer fits")),
            Some(Err(why)) => Err(why),
        }
    }
}

fn token() -> Sensitive {
    Sensitive::from("dG9rZW4=")
}

fn status() -> NodeStatus {
    NodeStatus {
        name: "n1".to_owned(),
        address: "10.0.0.1:6400".to_owned(),
        ..NodeStatus::default()
    }
}

#[async_trait]
impl Management for Double {
    fn phase(&self) -> Phase {
        *self.phase.lock()
    }

    fn identity(&self) -> Identity {
        Identity {
            name: "n1".to_owned(),
            address: "10.0.0.1:6400".to_owned(),
            cluster_uid: "5f1c6d2e-0000-4000-8000-000000000001".to_owned(),
        }
    }

    fn not_alive(&self) -> Option<String> {
        self.ill.lock().clone()
    }

    async fn condition(&self) -> Condition {
        let ill = self.ill.lock().clone();
        Condition { not_ready: ill.clone(), not_healthy: ill }
    }

    fn events(&self) -> &EventLog {
        &self.events
    }

    fn audit(&self) -> &AuditLog {
        &self.audit
    }

    async fn cluster_status(&self) -> Result<ClusterStatus, FleetError> {
        let feature = FeatureStatus::without_controller;
        self.reply("cluster_status", (), || ClusterStatus {
            ready: true,
            members: vec![status()],
            dns: feature(),
            network: feature(),
            load_balancer: feature(),
            ingress: feature(),
            gateway: feature(),
            metrics_server: feature(),
            local_storage: feature(),
            ..ClusterStatus::default()
        })
        .await
    }

    async fn bootstrap(&self, request: BootstrapRequest) -> Result<NodeStatus, FleetError> {
        self.reply("bootstrap", request, status).await
    }

    async fn node_status(&self) -> Result<NodeStatusAnswer, FleetError> {
        let plain = || NodeStatusAnswer { status: status(), ..NodeStatusAnswer::default() };
        self.reply("node_status", (), plain).await
    }

    async fn join_token(&self, request: JoinTokenRequest) -> Result<Sensitive, FleetError> {
        self.reply("join_token", request, token).await
    }

    async fn join_tokens(&self) -> Result<Vec<IssuedToken>, FleetError> {
        self.reply("join_tokens", (), Vec::new).await
    }

    async fn join(&self, request: JoinRequest) -> Result<(), FleetError> {
        self.reply("join", request, || ()).await
    }

    async fn remove(&self, request: RemoveRequest) -> Result<(), FleetError> {
        self.reply("remove", request, || ()).await
    }

    async fn config(&self) -> Result<ConfigAnswer, FleetError> {
        self.reply("config", (), ConfigAnswer::default).await
    }

    async fn set_config(&self, request: SetConfigRequest) -> Result<(), FleetError> {
        self.reply("set_config", request, || ()).await
    }

    async fn worker_info(
        &self,
        name: &str,
        token: &Sensitive,
        request: WorkerInfoRequest,
    ) -> Result<WorkerInfo, FleetError> {
        let asked = json!({ "name": name, "token": token, "request": request });
        self.reply("worker_info", asked, WorkerInfo::default).await
    }

    async fn plan_certificates(&self, ask: RefreshPlanRequest) -> Result<RefreshPlan, FleetError> {
        self.reply("plan_certificates", ask, RefreshPlan::default).await
    }

    async fn run_certificates(
        &self,
        ask: RefreshRunRequest,
    ) -> Result<RefreshRunAnswer, FleetError> {
        self.reply("run_certificates", ask, RefreshRunAnswer::default).await
    }

    async fn update_certificates(&self, ask: RefreshUpdateRequest) -> Result<(), FleetError> {
        self.reply("update_certificates", ask, || ()).await
    }

    async fn certificates_status(&self) -> Result<CertificatesStatus, FleetError> {
        self.reply("certificates_status", (), CertificatesStatus::default).await
    }

    async fn certificates_expiry(&self) -> Result<ExpiryAnswer, FleetError> {
        let plain = || ExpiryAnswer { expiry_date: "2027-11-22T10:00:00Z".to_owned() };
        self.reply("certificates_expiry", (), plain).await
    }

    async fn issue_auth_token(&self, request: AuthTokenRequest) -> Result<Sensitive, FleetError> {
        self.reply("issue_auth_token", request, token).await
    }

    async fn revoke_auth_token(&self, token: &Sensitive) -> Result<(), FleetError> {
        self.reply("revoke_auth_token", token, || ()).await
    }

    async fn review_token(&self, token: &Sensitive) -> Result<Option<TokenUser>, FleetError> {
        self.reply("review_token", token, || Some(TokenUser::new("alice", Vec::new()))).await
    }

    async fn set_capi_token(&self, token: &Sensitive) -> Result<(), FleetError> {
        self.reply("set_capi_token", token, || ()).await
    }

    async fn check_capi_token(&self, token: &Sensitive) -> Result<bool, FleetError> {
        Ok(token.reveal() == RIGHT)
    }

    async fn check_node_token(&self, token: &Sensitive) -> Result<bool, FleetError> {
        Ok(token.reveal() == RIGHT)
    }

    async fn admit(&self, ask: JoinAsk) -> Result<JoinAdmission, FleetError> {
        self.reply("admit", ask, || JoinAdmission {
            version: 1,
            id: "a1".to_owned(),
            cluster_id: "c1".to_owned(),
            members: Vec::new(),
            ca: "CA".to_owned(),
            certificates: std::collections::BTreeMap::new(),
            fleet_key: Sensitive::from("a2V5"),
            config: Value::Null,
        })
        .await
    }

    async fn hear(&self, who: &str, ask: TrustAsk) -> Result<TrustAnswer, FleetError> {
        let told = || TrustAnswer { ca: "CA".to_owned(), can_sign: true, apis: Vec::new() };
        self.reply("hear", json!({ "who": who, "ask": ask }), told).await
    }

    async fn renew(&self, who: &str, ask: RenewAsk) -> Result<RenewAnswer, FleetError> {
        let told = || RenewAnswer { certificate: "PEM".to_owned() };
        self.reply("renew", json!({ "who": who, "ask": ask }), told).await
    }

    async fn leave(&self, who: &str, ask: LeaveAsk) -> Result<(), FleetError> {
        self.reply("leave", json!({ "who": who, "ask": ask }), || ()).await
    }
}

/// A refusal by its name in the golden files.
pub(super) fn refusal(name: &str, text: &str) -> FleetError {
    let own = text.to_owned();
    let known: HashMap<&str, FleetError> = HashMap::from([
        ("AlreadyBootstrapped", FleetError::AlreadyBootstrapped),
        ("AnotherJoins", FleetError::AnotherJoins),
        ("Conflict", FleetError::Conflict(own.clone())),
        (
            "Immutable",
            FleetError::Immutable(if text == "datastore type" { "datastore type" } else { "?" }),
        ),
        ("Internal", FleetError::Internal(own.clone())),
        ("Invalid", FleetError::Invalid(own.clone())),
        ("JoinFailed", FleetError::JoinFailed(own.clone())),
        ("NameTaken", FleetError::NameTaken(own.clone())),
        ("NodeInUse", FleetError::NodeInUse(own.clone())),
        ("NodeNotInFleet", FleetError::NodeNotInFleet(own.clone())),
        ("Unauthorized", FleetError::Unauthorized(own.clone())),
        ("Unavailable", FleetError::Unavailable(own)),
    ]);
    known.get(name).unwrap_or_else(|| panic!("no refusal is called {name}")).clone()
}
