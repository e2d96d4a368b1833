//! Workers: how one is let in here, and how this node is one.
//!
//! ```text
//!   worker ── POST /1.0/k8sd/worker/info, token in a header ──> ONE entry: token used up, worker entered ── certificate
//!   then: a proxy in front of the members; every now and then it looks whether its own key is still there
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use parking_lot::Mutex;
use quorate_core::api::ids::MemberId;
use quorate_core::api::pb::internal::fleet_request::Ask;
use quorate_core::api::pb::internal::{FleetAdmit, FleetNode, FleetRole};
use serde::Deserialize;
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::admit::{check_new, check_token};
use super::authority::Signed;
use super::bootstrap::now;
use super::certificates::{self, Subject};
use super::config;
use super::join::Journey;
use super::launcher::WorkerPlan;
use super::life::{Node, REMOVED};
use super::record::Phase;
use super::refusals::{of_keyspace, unexpected};
use super::registry::{NODES_PREFIX, NodeRecord, change};
use super::stage::{Gate, Stage};
use super::tokens::secret;
use super::wire;
use crate::fleet::api::Sensitive;
use crate::fleet::api::cluster::ClusterRole;
use crate::fleet::api::names::clean_name;
use crate::fleet::api::worker::{WorkerInfo, WorkerInfoRequest};
use crate::fleet::error::FleetError;
use crate::fleet::pki::{CertificateName, host_of};

/// How often a worker looks whether it still belongs to the fleet, and notes where the members are.
const LOOK: Duration = Duration::from_secs(1);

/// How long a member may take to answer that.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// A key that is not there has to be missed so often in a row.
const MISSED_MAX: u32 = 2;

/// What a worker's one certificate is signed as, for both: it serves its clients, and is one of the members'.
pub(super) const WORKERS: CertificateName = CertificateName::Peer;

impl Node {
    /// Lets a worker in.
    pub(super) async fn admit_worker(
        &self,
        name: &str,
        token: &Sensitive,
        request: WorkerInfoRequest,
    ) -> Result<WorkerInfo, FleetError> {
        let seat = self.stage().seat()?;
        let name = clean_name(name)?;
        let Some(host) = host_of(&request.address) else {
            return Err(FleetError::Invalid("the worker's address is missing".to_owned()));
        };
        let shown = secret(token);
        check_token(&seat, &shown, &name, FleetRole::Worker).await?;
        check_new(&seat, &name, &request.address).await?;
        let subject = Subject::joining(&name, &[host]).into_worker();
        let asked: BTreeMap<String, String> =
            request.csr.iter().map(|csr| (WORKERS.to_string(), csr.clone())).collect();
        let signed = Signed::now(&seat, &subject, &asked).await?;
        let id = MemberId(rand::random_range(1..=u64::MAX));
        let entry = NodeRecord {
            name: name.clone(),
            address: request.address.clone(),
            role: ClusterRole::Worker,
            status: None,
            joined_at: now(),
        };
        let node = FleetNode {
            id: id.0,
            name: name.clone(),
            address: request.address.clone(),
            role: FleetRole::Worker as i32,
            record: entry.encode(),
            ..FleetNode::default()
        };
        let token_hash = Bytes::copy_from_slice(&shown.hash());
        let admit = FleetAdmit { token_hash, node: Some(node) };
        change(seat.keyspace(), Ask::Admit(admit)).await.map_err(of_keyspace)?;
        tracing::info!(name, %id, "a worker was let in");
        let mut signed = signed.once_entered(&seat, &subject, &asked).await?;
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
    pub(super) async fn join_as_worker(&self, journey: &Journey) -> Result<(), FleetError> {
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
        let info: WorkerInfo = wire::ask_first(&journey.token, path, &headers, &request).await?;
        self.0.steps.reach("let in").await?;
        let certificate = info.client_certificate.as_deref().ok_or_else(|| {
            FleetError::JoinFailed("the cluster has signed no certificate".to_owned())
        })?;
        asked.install_worker(&self.0.directory, &info.ca, certificate)?;
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
