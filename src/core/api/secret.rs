//! How messages with secrets are shown: without them. A request may end up in a log line or in last words.

use std::fmt;

use super::pb::authpb;
use super::pb::etcdserverpb::{
    AuthUserAddRequest, AuthUserChangePasswordRequest, AuthenticateRequest, AuthenticateResponse,
};
use super::pb::internal::{
    AuthLogin, AuthUserAdd, AuthUserChangePassword, FleetAuthTokenIssue, FleetAuthority,
    FleetTokenIssue,
};

/// Shows the name alone.
macro_rules! shown_by_name {
    ($($message:ident),*) => {
        $(impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($message)).field("name", &self.name).finish_non_exhaustive()
            }
        })*
    };
}

shown_by_name!(
    AuthenticateRequest,
    AuthUserAddRequest,
    AuthUserChangePasswordRequest,
    AuthUserAdd,
    AuthUserChangePassword,
    AuthLogin
);

impl fmt::Debug for AuthenticateResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticateResponse").field("header", &self.header).finish_non_exhaustive()
    }
}

impl fmt::Debug for authpb::User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("name", &self.name)
            .field("roles", &self.roles)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for FleetAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetAuthority")
            .field("generation", &self.generation)
            .field("certificates", &self.certificates.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for FleetTokenIssue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetTokenIssue")
            .field("name", &self.name)
            .field("role", &self.role())
            .field("expires_ms", &self.expires_ms)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for FleetAuthTokenIssue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetAuthTokenIssue")
            .field("username", &self.username)
            .field("groups", &self.groups)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn passwords_hashes_and_tokens_are_not_shown() {
        let secret = || "hunter2".to_owned();
        let shown = [
            format!("{:?}", AuthenticateRequest { name: "u".to_owned(), password: secret() }),
            format!("{:?}", AuthenticateResponse { header: None, token: secret() }),
            format!(
                "{:?}",
                AuthUserAddRequest {
                    password: secret(),
                    hashed_password: secret(),
                    ..AuthUserAddRequest::default()
                }
            ),
            format!(
                "{:?}",
                AuthUserChangePasswordRequest {
                    password: secret(),
                    hashed_password: secret(),
                    ..AuthUserChangePasswordRequest::default()
                }
            ),
            format!("{:?}", AuthUserAdd { password_hash: secret(), ..AuthUserAdd::default() }),
            format!(
                "{:?}",
                AuthUserChangePassword { name: "u".to_owned(), password_hash: secret() }
            ),
            format!("{:?}", AuthLogin { token_id: secret(), ..AuthLogin::default() }),
            format!(
                "{:?}",
                authpb::User { password: Bytes::from(secret()), ..authpb::User::default() }
            ),
            format!(
                "{:?}",
                FleetAuthority { sealed_key: Bytes::from(secret()), ..FleetAuthority::default() }
            ),
            format!(
                "{:?}",
                FleetTokenIssue {
                    hash: Bytes::from(secret()),
                    nonce: Bytes::from(secret()),
                    ..FleetTokenIssue::default()
                }
            ),
            format!(
                "{:?}",
                FleetAuthTokenIssue {
                    hash: Bytes::from(secret()),
                    nonce: Bytes::from(secret()),
                    ..FleetAuthTokenIssue::default()
                }
            ),
        ];
        for shown in shown {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
