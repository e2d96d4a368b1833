//! Workers: how one is let in here, and how this node is one.
//!
//! ```text
//!   worker ── POST /1.0/k8sd/worker/info, token in a header ──> ONE entry: token used up, worker entered ── certificate
//!     └── no answer: asked again, with the same name, address and key ──> let in under the same id
//!   then: a proxy in front of the members; every now and then it looks whether its own key is still there
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use quorate_core::api::pb::internal::FleetRole;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::admit::{again, check_new, check_token, enter, entered_before, listed};
use super::authority::Signed;
use super::bootstrap::now;
use super::certificates::{self, Subject};
use super::config;
use super::join::Journey;
use super::launcher::WorkerPlan;
use super::life::{Node, REMOVED};
use super::record::{Joining, Phase};
use super::refusals::unexpected;
use super::registry::{NODES_PREFIX, NodeRecord};
use super::stage::{Gate, Seat, Stage};
use super::tokens::secret;
use super::wire;
use crate::fleet::api::Sensitive;
use crate::fleet::api::cluster::ClusterRole;
use crate::fleet::api::names::clean_name;
use crate::fleet::api::worker::{WorkerInfo, WorkerInfoRequest};
use crate::fleet::error::FleetError;
use crate::fleet::pki::{CertificateName, host_of};
use crate::fleet::secret::Secret;

/// How often a worker looks whether it still belongs to the fleet, and notes where the members are.
const LOOK: Duration = Duration::from_secs(1);

/// How long a member may take to answer that.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// A key that is not there has to be missed so often in a row.
const MISSED_MAX: u32 = 2;

/// What a worker's one certificate is signed as, for both: it serves its clients, and is one of the members'.
pub(super) const WORKERS: CertificateName = CertificateName::Peer;

/// SHA-256 of all that a worker asks with: who asks with the same again has the same key. Nothing if it has none to be
/// signed for: whoever knew its token could ask so.
fn asked_with(name: &str, shown: &Secret, request: &WorkerInfoRequest) -> Vec<u8> {
    if request.csr.is_none() {
        return Vec::new();
    }
    let asked = serde_json::to_string(&("worker", name, shown.reveal(), request));
    Secret::from(asked.expect("texts become JSON")).hash().to_vec()
}

impl Node {
    /// Lets a worker in.
    pub(super) async fn admit_worker(
        &self,
        name: &str,
        token: &Sensitive,
        request: WorkerInfoRequest,
    ) -> Result<WorkerInfo, FleetError> {
        let seat = self.stage().seat()?;
        let (name, shown) = (clean_name(name)?, secret(token));
        let node = self.clone();
        let work = async move { node.admit_one_worker(&seat, name, &shown, request).await };
        self.detached(work).await
    }

    async fn admit_one_worker(
        &self,
        seat: &Seat,
        name: String,
        shown: &Secret,
        request: WorkerInfoRequest,
    ) -> Result<WorkerInfo, FleetError> {
        let Some(host) = host_of(&request.address) else {
            return Err(FleetError::Invalid("the worker's address is missing".to_owned()));
        };
        let asked = asked_with(&name, shown, &request);
        let entered = entered_before(seat, &asked).await?;
        if entered.is_none() {
            check_token(seat, shown, &name, FleetRole::Worker).await?;
            check_new(seat, &name, &request.address).await?;
        }
        let subject = Subject::joining(&name, &[host]).into_worker();
        let csrs: BTreeMap<String, String> =
            request.csr.iter().map(|csr| (WORKERS.to_string(), csr.clone())).collect();
        let signed = Signed::now(seat, &subject, &csrs).await?;
        self.0.steps.reach("signed").await?;
        let record = NodeRecord {
            name: name.clone(),
            address: request.address,
            role: ClusterRole::Worker,
            status: None,
            joined_at: now(),
        };
        let id = match entered {
            Some(id) => again(&name, id),
            None => enter(seat, shown, listed(&record, &asked)).await?,
        };
        tracing::info!(name, %id, "a worker was let in");
        self.0.steps.reach("admitted").await?;
        let mut signed = signed.once_entered(seat, &subject, &csrs).await?;
        let (config, _) = config::read(seat.keyspace()).await?;
        let ca = certificates::authorities(&signed.authority)?;
        let members = seat.keyspace().members();
        Ok(WorkerInfo {
            client_ca: ca.clone(),
            ca,
            api_servers: members.into_iter().flat_map(|member| member.client_ur_ls).collect(),
            pod_cidr: config.network.pod_cidr.unwrap_or_default(),
            service_cidr: config.network.service_cidr.unwrap_or_default(),
            cluster_dns: config.kubelet.cluster_dns.unwrap_or_default(),
            cluster_domain: config.kubelet.cluster_domain.unwrap_or_default(),
            cloud_provider: config.kubelet.cloud_provider.unwrap_or_default(),
            annotations: config.annotations.unwrap_or_default(),
            kube_proxy_enabled: config.network.kube_proxy_enabled.unwrap_or_default(),
            client_certificate: signed.certificates.remove(WORKERS.as_str()),
            cluster_uid: seat.uid.clone(),
            node_id: id.to_string(),
            ..WorkerInfo::default()
        })
    }

    /// This node becomes a worker.
    pub(super) async fn join_as_worker(
        &self,
        journey: &Journey,
        noted: &mut Joining,
    ) -> Result<(), FleetError> {
        self.progress("join", "making keys");
        let (name, address) = (&journey.name, &journey.address);
        let subject = Subject::of(&self.0.settings, name, address, Some(&journey.extra_sans));
        let asked = certificates::request(&subject.into_worker(), &[CertificateName::Client])?;
        let request = WorkerInfoRequest {
            address: address.clone(),
            csr: asked.requests.values().next().cloned(),
        };
        self.progress("join", "asking to be let in");
        let headers =
            [("worker-name", name.as_str()), ("worker-token", journey.token.secret.reveal())];
        let path = "/1.0/k8sd/worker/info";
        let info: WorkerInfo = wire::ask_again(&journey.token, path, &headers, &request).await?;
        let certificate = info.client_certificate.as_deref().ok_or_else(|| {
            FleetError::JoinFailed("the cluster has signed no certificate".to_owned())
        })?;
        asked.install_worker(&self.0.directory, &info.ca, certificate)?;
        // From here on it can ask to be let go, should it not get going.
        noted.id = Some(info.node_id.clone());
        self.note(&Phase::Joining(noted.clone()))?;
        self.0.steps.reach("let in").await?;
        self.progress("join", "starting the proxy");
        let plan = WorkerPlan {
            name: name.clone(),
            address: address.clone(),
            endpoints: info.api_servers.clone(),
        };
        let worker = self.0.launcher.worker(plan).await;
        let worker = worker.map_err(|why| unexpected(&why.to_string()))?;
        let gate = Gate {
            uid: journey.token.uid.clone(),
            name: name.clone(),
            address: address.clone(),
            id: info.node_id,
            apis: Mutex::new(journey.token.addresses.clone()),
            worker,
        };
        self.note_gate(&gate, info.api_servers)?;
        self.make_node_token()?;
        let gate = Arc::new(gate);
        self.enter(Stage::Worker(Arc::clone(&gate)));
        self.attend_worker(gate);
        Ok(())
    }

    fn note_gate(&self, gate: &Gate, endpoints: Vec<String>) -> Result<(), FleetError> {
        self.note(&Phase::Worker {
            uid: gate.uid.clone(),
            name: gate.name.clone(),
            address: gate.address.clone(),
            id: gate.id.clone(),
            apis: gate.apis.lock().clone(),
            endpoints,
        })
    }

    /// Looks after a worker as long as it is one.
    pub(super) fn attend_worker(&self, gate: Arc<Gate>) {
        self.keep_worker_certificates(Arc::clone(&gate));
        let node = self.clone();
        self.spawn(async move {
            let (mut missed, mut noted) = (0, Vec::new());
            while missed < MISSED_MAX {
                sleep(LOOK).await;
                let endpoints = gate.worker.endpoints();
                if noted != endpoints && !endpoints.is_empty() {
                    match node.note_gate(&gate, endpoints.clone()) {
                        Ok(()) => noted = endpoints.clone(),
                        Err(why) => {
                            tracing::warn!(error = %why, "where the members are is not noted")
                        }
                    }
                }
                match node.belongs(&gate.id, &endpoints).await {
                    Some(true) | None => missed = 0,
                    Some(false) => missed += 1,
                }
            }
            tracing::warn!(name = gate.name, "this worker was removed from its cluster");
            let _turn = node.0.turn.lock().await;
            gate.worker.stop().await;
            node.reset_here(REMOVED, None).await;
        });
    }

    /// Whether the registry has this worker's key, by a linearizable read; `None`: nobody says.
    async fn belongs(&self, id: &str, endpoints: &[String]) -> Option<bool> {
        #[derive(Deserialize)]
        struct Found {
            header: serde_json::Value,
            #[serde(default)]
            kvs: Vec<serde_json::Value>,
        }
        let asking = json!({ "key": STANDARD.encode(format!("{NODES_PREFIX}{id}")) });
        for endpoint in endpoints {
            let asked =
                wire::ask_member::<Found>(&self.0.directory, endpoint, "/v3/kv/range", &asking);
            if let Ok(Ok(found)) = timeout(ANSWERED_WITHIN, asked).await
                && found.header.is_object()
            {
                return Some(!found.kvs.is_empty());
            }
        }
        None
    }
}
