//! Answers of the Auth, Cluster and Maintenance services as text: every field as it came, identities masked.

use std::fmt::Debug;

use tonic::{Response, Status};

use super::answer::{Answer, mask};
use crate::pb::etcdserverpb as pb;
use crate::pb::etcdserverpb::ResponseHeader;

/// A message with a header.
pub(super) trait Headed: Debug {
    fn header(&mut self) -> &mut Option<ResponseHeader>;
}

macro_rules! headed {
    ($($message:ident),* $(,)?) => {
        $(impl Headed for pb::$message {
            fn header(&mut self) -> &mut Option<ResponseHeader> {
                &mut self.header
            }
        })*
    };
}

headed!(
    AuthDisableResponse,
    AuthEnableResponse,
    AuthRoleAddResponse,
    AuthRoleDeleteResponse,
    AuthRoleGetResponse,
    AuthRoleGrantPermissionResponse,
    AuthRoleListResponse,
    AuthRoleRevokePermissionResponse,
    AuthStatusResponse,
    AuthUserAddResponse,
    AuthUserChangePasswordResponse,
    AuthUserDeleteResponse,
    AuthUserGetResponse,
    AuthUserGrantRoleResponse,
    AuthUserListResponse,
    AuthUserRevokeRoleResponse,
    AuthenticateResponse,
    DefragmentResponse,
    DowngradeResponse,
    HashResponse,
    MemberAddResponse,
    MemberPromoteResponse,
    MemberRemoveResponse,
    MemberUpdateResponse,
    MoveLeaderResponse,
    WatchResponse,
);

/// The answer of a call, its message shown once `reshape` has taken out what two servers cannot have in common.
pub(super) fn told_as<T: Headed>(
    name: &'static str,
    result: Result<Response<T>, Status>,
    reshape: impl FnOnce(&mut T),
) -> Answer {
    match result {
        Ok(response) => message(name, response.into_inner(), reshape),
        Err(status) => status.into(),
    }
}

/// The same of a message alone.
pub(super) fn message<T: Headed>(
    name: &'static str,
    mut message: T,
    reshape: impl FnOnce(&mut T),
) -> Answer {
    let revision = message.header().map_or(0, |header| header.revision);
    mask(message.header());
    reshape(&mut message);
    Answer::Text { name, revision, text: format!("{message:?}") }
}

/// The answer of a call, with nothing to take out.
pub(super) fn told<T: Headed>(name: &'static str, result: Result<Response<T>, Status>) -> Answer {
    told_as(name, result, |_| {})
}
