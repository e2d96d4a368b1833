//! The API as the gateway sees it. The tables themselves are generated from `proto/` (`service/pb/gateway.rs`).

use crate::service::pb::gateway::ROUTES;

/// A path and the method that it stands for.
pub(crate) struct Route {
    pub(crate) path: &'static str,
    /// `/package.Service/Method`.
    pub(crate) method: &'static str,
    pub(crate) input: &'static Message,
    pub(crate) output: &'static Message,
    pub(crate) streams_in: bool,
    pub(crate) streams_out: bool,
}

/// A message: its fields in the order of their declaration, which is the order in which they are written.
pub(crate) struct Message {
    pub(crate) fields: &'static [Field],
}

/// A field. `json` is its name in camel case; both names are read, `name` is written.
pub(crate) struct Field {
    pub(crate) number: u32,
    pub(crate) name: &'static str,
    pub(crate) json: &'static str,
    pub(crate) kind: Kind,
    pub(crate) repeated: bool,
    /// The full name of the oneof that it belongs to.
    pub(crate) oneof: Option<&'static str>,
}

/// What a field holds: the kinds that etcd's API uses.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Bool,
    Int64,
    Uint32,
    Uint64,
    String,
    Bytes,
    Enum(&'static Enum),
    Message(&'static Message),
}

/// Names and numbers.
pub(crate) struct Enum {
    pub(crate) values: &'static [(&'static str, i32)],
}

impl Route {
    /// The route of a path.
    pub(crate) fn find(path: &str) -> Option<&'static Route> {
        let at = ROUTES.binary_search_by(|route| route.path.cmp(path)).ok()?;
        ROUTES.get(at)
    }
}

impl Kind {
    /// protobuf's word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Kind::Bool => "bool",
            Kind::Int64 => "int64",
            Kind::Uint32 => "uint32",
            Kind::Uint64 => "uint64",
            Kind::String => "string",
            Kind::Bytes => "bytes",
            Kind::Enum(_) => "enum",
            Kind::Message(_) => "message",
        }
    }

    /// Written as a length and bytes, not as a number.
    pub(crate) fn has_length(self) -> bool {
        match self {
            Kind::String | Kind::Bytes | Kind::Message(_) => true,
            Kind::Bool | Kind::Int64 | Kind::Uint32 | Kind::Uint64 | Kind::Enum(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_in_order_and_lead_to_methods() {
        assert!(ROUTES.is_sorted_by(|a, b| a.path < b.path));
        let put = Route::find("/v3/kv/put").unwrap();
        assert_eq!(put.method, "/etcdserverpb.KV/Put");
        let watch = Route::find("/v3/watch").unwrap();
        assert!(watch.streams_in && watch.streams_out);
        assert!(Route::find("/v3/kv/put/").is_none());
        let revoke = ["/v3/lease/revoke", "/v3/kv/lease/revoke"];
        for path in revoke {
            assert_eq!(Route::find(path).unwrap().method, "/etcdserverpb.Lease/LeaseRevoke");
        }
    }
}
