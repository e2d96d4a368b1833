//! The fleet's records once more, kept as lists and asked from their start each time.

use bytes::Bytes;

use crate::api::pb::etcdserverpb as pb;
use crate::api::pb::etcdserverpb::request_op::Request as Op;
use crate::api::pb::internal::command::Request;
use crate::api::pb::internal::fleet_request::Ask;
use crate::api::pb::internal::{
    FleetAdmit, FleetAuthTokenIssue, FleetAuthority, FleetAuthorityChange, FleetBootstrap,
    FleetNode, FleetRequest, FleetTokenIssue,
};
use crate::api::refusal::{FleetRefusal as R, Refusal, ReservedPrefix};
use crate::api::reply::FleetReply;

const CONTROL_PLANE: i32 = 1;
const WORKER: i32 = 2;
const DAY_MS: i64 = 86_400_000;

/// The fleet, once there is one.
#[derive(Clone, Debug, Default)]
pub(super) struct FleetModel {
    begun: bool,
    generation: u64,
    nodes: Vec<FleetNode>,
    join_tokens: Vec<FleetTokenIssue>,
    auth_tokens: Vec<FleetAuthTokenIssue>,
}

/// A key put, or deleted if it has no value.
pub(super) type Change = (Bytes, Option<Bytes>);

/// What a change of the fleet's records is decided by beside them.
pub(super) struct Around<'a> {
    pub(super) now_ms: i64,
    pub(super) is_fenced: bool,
    pub(super) live_keys: &'a [Bytes],
}

impl FleetModel {
    /// It is let through by the alarm CORRUPT.
    pub(super) fn is_cure(request: &FleetRequest) -> bool {
        matches!(
            request.ask,
            Some(Ask::NodeRemove(_) | Ask::TokenRevoke(_) | Ask::AuthTokenRevoke(_))
        )
    }

    pub(super) fn is_begun(&self) -> bool {
        self.begun
    }

    /// Whether a client may ask this; `keys_of` lists what hangs on a lease.
    pub(super) fn permit(
        &self,
        request: &Request,
        keys_of: &dyn Fn(i64) -> Vec<Vec<u8>>,
    ) -> Result<(), Refusal> {
        if !self.begun {
            return Ok(());
        }
        let mut touched = Vec::new();
        match request {
            Request::Put(put) => touched.push((put.key.to_vec(), Vec::new())),
            Request::DeleteRange(delete) => {
                touched.push((delete.key.to_vec(), delete.range_end.to_vec()));
            }
            Request::Txn(txn) => touched_by(txn, &mut touched),
            Request::LeaseRevoke(revoke) => {
                touched.extend(keys_of(revoke.id).into_iter().map(|key| (key, Vec::new())));
            }
            _ => {}
        }
        let first = touched.iter().find_map(|(key, end)| reserved(key, end));
        first.map_or(Ok(()), |prefix| Err(Refusal::ReservedPrefix(prefix)))
    }

    /// Decides everything but a txn; also says which keys change, in order.
    pub(super) fn apply(
        &mut self,
        ask: &Ask,
        around: &Around<'_>,
    ) -> Result<(FleetReply, Vec<Change>), R> {
        match ask {
            Ask::Bootstrap(bootstrap) => self.bootstrap(bootstrap, around),
            Ask::Admit(admit) => self.admit(admit, around),
            Ask::NodeRemove(id) => {
                let place = self.nodes.iter().position(|node| node.id == *id);
                let node = self.nodes.remove(place.ok_or(R::NodeUnknown)?);
                self.join_tokens.retain(|token| token.name != node.name);
                let gone = around.live_keys.contains(&key_of(*id)).then(|| (key_of(*id), None));
                Ok((FleetReply::Done, gone.into_iter().collect()))
            }
            Ask::TokenIssue(issue) => Ok((self.issue(issue, around.now_ms)?, Vec::new())),
            Ask::TokenRevoke(hash) => {
                let before = self.join_tokens.len();
                self.join_tokens.retain(|token| token.hash != hash);
                refuse(self.join_tokens.len() == before, R::TokenUnknown)?;
                Ok((FleetReply::Done, Vec::new()))
            }
            Ask::AuthTokenIssue(issue) => Ok((self.issue_auth(issue)?, Vec::new())),
            Ask::AuthTokenRevoke(hash) => {
                let before = self.auth_tokens.len();
                self.auth_tokens.retain(|token| token.hash != hash);
                refuse(self.auth_tokens.len() == before, R::TokenUnknown)?;
                Ok((FleetReply::Done, Vec::new()))
            }
            Ask::CapiToken(hash) => {
                refuse(!hash.is_empty() && hash.len() != 32, R::Malformed)?;
                Ok((FleetReply::Done, Vec::new()))
            }
            Ask::Authority(change) => {
                self.change_authority(change)?;
                Ok((FleetReply::Done, Vec::new()))
            }
            Ask::Txn(_) | Ask::LeaseRevoke(_) => panic!("the keys' own model answers this"),
        }
    }

    fn bootstrap(
        &mut self,
        bootstrap: &FleetBootstrap,
        around: &Around<'_>,
    ) -> Result<(FleetReply, Vec<Change>), R> {
        refuse(self.begun, R::AlreadyBootstrapped)?;
        let node = bootstrap.node.clone().ok_or(R::Malformed)?;
        let authority = bootstrap.authority.clone().ok_or(R::Malformed)?;
        let is_bad = bootstrap.uid.is_empty()
            || bootstrap.schema_version == 0
            || node.id == 0
            || node.name.is_empty()
            || node.address.is_empty()
            || node.role != CONTROL_PLANE
            || !is_authority(&authority);
        refuse(is_bad, R::Malformed)?;
        let mut keys: Vec<(Bytes, Bytes)> = vec![
            ("/k8sd/schema_version".into(), bootstrap.schema_version.to_string().into()),
            (key_of(node.id), node.record.clone()),
            ("/kat/config/cluster_uid".into(), bootstrap.uid.clone().into()),
        ];
        for key in &bootstrap.keys {
            refuse(keys.iter().any(|(written, _)| *written == key.key), R::Malformed)?;
            refuse(reserved(&key.key, b"").is_none(), R::Malformed)?;
            keys.push((key.key.clone(), key.value.clone()));
        }
        let used = around.live_keys.iter().any(|key| reserved(key, b"").is_some());
        refuse(used, R::PrefixInUse)?;
        self.begun = true;
        self.generation = authority.generation;
        self.nodes.push(node);
        Ok((FleetReply::Done, keys.into_iter().map(|(key, value)| (key, Some(value))).collect()))
    }

    fn admit(
        &mut self,
        admit: &FleetAdmit,
        around: &Around<'_>,
    ) -> Result<(FleetReply, Vec<Change>), R> {
        let node = admit.node.clone().ok_or(R::Malformed)?;
        let is_role = [CONTROL_PLANE, WORKER].contains(&node.role);
        refuse(node.id == 0 || node.name.is_empty() || !(0..3).contains(&node.role), R::Malformed)?;
        if admit.token_hash.is_empty() {
            refuse(!around.is_fenced || node.role != CONTROL_PLANE, R::Malformed)?;
            // No membership is in force where the model is used.
            return Err(R::NodeUnknown);
        }
        refuse(!is_role, R::Malformed)?;
        refuse(node.role == CONTROL_PLANE && node.address.is_empty(), R::Malformed)?;
        let place = self.join_tokens.iter().position(|token| token.hash == admit.token_hash);
        let place = place.ok_or(R::TokenUnknown)?;
        let token = &self.join_tokens[place];
        refuse(token.expires_ms <= around.now_ms, R::TokenExpired)?;
        refuse(token.role != node.role, R::TokenRole)?;
        refuse(!token.name.is_empty() && token.name != node.name, R::TokenName)?;
        let other = |is: &dyn Fn(&FleetNode) -> bool| self.nodes.iter().any(is);
        refuse(other(&|other| other.id == node.id), R::IdTaken)?;
        refuse(other(&|other| other.name == node.name), R::NameTaken)?;
        let is_there =
            |other: &FleetNode| !node.address.is_empty() && other.address == node.address;
        refuse(other(&is_there), R::AddressTaken)?;
        self.join_tokens.remove(place);
        let key = (key_of(node.id), Some(node.record.clone()));
        self.nodes.push(node);
        Ok((FleetReply::Done, vec![key]))
    }

    fn issue(&mut self, issue: &FleetTokenIssue, now_ms: i64) -> Result<FleetReply, R> {
        let named = !issue.name.is_empty();
        refuse(!(named && issue.role == CONTROL_PLANE || issue.role == WORKER), R::Malformed)?;
        refuse(issue.hash.len() != 32 || issue.nonce.is_empty(), R::Malformed)?;
        refuse(issue.expires_ms <= now_ms, R::TokenExpired)?;
        let mut token = issue.clone();
        let mut fresh = true;
        for given in &self.join_tokens {
            let alike = (&given.name, given.role) == (&issue.name, issue.role);
            if alike && given.expires_ms > now_ms {
                (token, fresh) = (given.clone(), false);
            }
        }
        if fresh {
            let is_taken = self.join_tokens.iter().any(|given| given.hash == issue.hash);
            refuse(is_taken, R::Malformed)?;
            self.join_tokens.retain(|given| {
                let alike = (&given.name, given.role) == (&issue.name, issue.role);
                !alike && given.expires_ms + DAY_MS > now_ms
            });
            self.join_tokens.push(issue.clone());
        }
        Ok(FleetReply::Token { nonce: token.nonce, expires_ms: token.expires_ms, fresh })
    }

    fn issue_auth(&mut self, issue: &FleetAuthTokenIssue) -> Result<FleetReply, R> {
        let mut groups = issue.groups.clone();
        groups.sort();
        groups.dedup();
        groups.retain(|group| !group.is_empty());
        refuse(issue.username.is_empty() || groups != issue.groups, R::Malformed)?;
        refuse(issue.hash.len() != 32 || issue.nonce.is_empty(), R::Malformed)?;
        for given in &self.auth_tokens {
            if (&given.username, &given.groups) == (&issue.username, &issue.groups) {
                return Ok(FleetReply::AuthToken { nonce: given.nonce.clone(), fresh: false });
            }
        }
        let is_taken = self.auth_tokens.iter().any(|given| given.hash == issue.hash);
        refuse(is_taken, R::Malformed)?;
        self.auth_tokens.push(issue.clone());
        Ok(FleetReply::AuthToken { nonce: issue.nonce.clone(), fresh: true })
    }

    fn change_authority(&mut self, change: &FleetAuthorityChange) -> Result<(), R> {
        refuse(change.over_generation != self.generation, R::GenerationMoved)?;
        let next = change.authority.as_ref().ok_or(R::Malformed)?;
        let follows = next.generation == self.generation + 1;
        refuse(!follows || !is_authority(next), R::Malformed)?;
        self.generation += 1;
        Ok(())
    }
}

fn refuse(when: bool, refusal: R) -> Result<(), R> {
    if when { Err(refusal) } else { Ok(()) }
}

fn key_of(id: u64) -> Bytes {
    format!("/k8sd/nodes/{id:x}").into()
}

fn is_authority(authority: &FleetAuthority) -> bool {
    let certificates = &authority.certificates;
    authority.generation != 0
        && !certificates.is_empty()
        && !certificates.iter().any(Bytes::is_empty)
}

fn touched_by(txn: &pb::TxnRequest, touched: &mut Vec<(Vec<u8>, Vec<u8>)>) {
    for op in txn.success.iter().chain(&txn.failure) {
        match &op.request {
            Some(Op::RequestPut(put)) => touched.push((put.key.to_vec(), Vec::new())),
            Some(Op::RequestDeleteRange(delete)) => {
                touched.push((delete.key.to_vec(), delete.range_end.to_vec()));
            }
            Some(Op::RequestTxn(txn)) => touched_by(txn, touched),
            Some(Op::RequestRange(_)) | None => {}
        }
    }
}

/// Which prefix a point or a range touches: a range does if a bound of either lies in the other.
fn reserved(key: &[u8], range_end: &[u8]) -> Option<ReservedPrefix> {
    let parts: [(&[u8], &[u8], ReservedPrefix); 3] = [
        (b"/k8sd/", b"/k8sd0", ReservedPrefix::K8sd),
        (b"/kat/", b"/kat/leader/", ReservedPrefix::Kat),
        (b"/kat/leader0", b"/kat0", ReservedPrefix::Kat),
    ];
    for (start, end, prefix) in parts {
        let is_in = |point: &[u8]| start <= point && point < end;
        let reaches = range_end == b"\0" || start < range_end;
        let spans = !range_end.is_empty() && key <= start && reaches;
        let is_range = range_end.is_empty() || range_end == b"\0" || key < range_end;
        if is_range && (is_in(key) || spans) {
            return Some(prefix);
        }
    }
    None
}
