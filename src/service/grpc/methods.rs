//! Every gRPC method that etcd registers: its service, whether it streams, and whether we answer it.

/// How messages flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// One message each way.
    Unary,
    /// One in, many out.
    ServerStream,
    /// Many both ways.
    BidiStream,
}

impl Flow {
    /// grpc-prometheus's word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Flow::Unary => "unary",
            Flow::ServerStream => "server_stream",
            Flow::BidiStream => "bidi_stream",
        }
    }
}

/// One method.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Method {
    pub(crate) service: &'static str,
    pub(crate) name: &'static str,
    pub(crate) flow: Flow,
}

const fn rows<const N: usize>(service: &'static str, names: [&'static str; N]) -> [Method; N] {
    let mut all = [Method { service, name: "", flow: Flow::Unary }; N];
    let mut i = 0;
    while i < N {
        all[i].name = names[i];
        i += 1;
    }
    all
}

const fn streams(service: &'static str, name: &'static str, flow: Flow) -> [Method; 1] {
    [Method { service, name, flow }]
}

/// Every method whose metrics exist before its first call.
pub(crate) fn counted() -> impl Iterator<Item = Method> {
    rows("etcdserverpb.KV", ["Range", "Put", "DeleteRange", "Txn", "Compact"])
        .into_iter()
        .chain(streams("etcdserverpb.KV", "RangeStream", Flow::ServerStream))
        .chain(streams("etcdserverpb.Watch", "Watch", Flow::BidiStream))
        .chain(rows(
            "etcdserverpb.Lease",
            ["LeaseGrant", "LeaseRevoke", "LeaseTimeToLive", "LeaseLeases"],
        ))
        .chain(streams("etcdserverpb.Lease", "LeaseKeepAlive", Flow::BidiStream))
        .chain(rows(
            "etcdserverpb.Cluster",
            ["MemberAdd", "MemberRemove", "MemberUpdate", "MemberList", "MemberPromote"],
        ))
        .chain(rows(
            "etcdserverpb.Maintenance",
            ["Alarm", "Status", "Defragment", "Hash", "HashKV", "MoveLeader", "Downgrade"],
        ))
        .chain(streams("etcdserverpb.Maintenance", "Snapshot", Flow::ServerStream))
        .chain(rows("etcdserverpb.Auth", AUTH))
        .chain(rows("grpc.health.v1.Health", ["Check"]))
        .chain(streams("grpc.health.v1.Health", "Watch", Flow::ServerStream))
        .chain(rows("grpc.health.v1.Health", ["List"]))
}

/// Methods that are counted once they have been called: etcd registers them apart.
pub(crate) fn uncounted() -> impl Iterator<Item = Method> {
    rows("v3lockpb.Lock", ["Lock", "Unlock"])
        .into_iter()
        .chain(rows("v3electionpb.Election", ["Campaign", "Proclaim", "Leader", "Resign"]))
        .chain(streams("v3electionpb.Election", "Observe", Flow::ServerStream))
}

const AUTH: [&str; 17] = [
    "AuthEnable",
    "AuthDisable",
    "AuthStatus",
    "Authenticate",
    "UserAdd",
    "UserGet",
    "UserList",
    "UserDelete",
    "UserChangePassword",
    "UserGrantRole",
    "UserRevokeRole",
    "RoleAdd",
    "RoleGet",
    "RoleList",
    "RoleDelete",
    "RoleGrantPermission",
    "RoleRevokePermission",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counted_methods_are_those_etcd_shows() {
        // `grpc_server_started_total` of a fresh etcd 3.7.1.
        let shown = include_str!("../../../tests/testdata/http/grpc-methods.txt");
        let mut etcd: Vec<String> = shown.lines().map(str::to_owned).collect();
        let mut ours: Vec<String> =
            counted().map(|m| format!("{} {} {}", m.flow.word(), m.service, m.name)).collect();
        etcd.sort();
        ours.sort();
        assert_eq!(ours, etcd);
    }
}
