//! What a client shows, and the handle that it gets.

use std::fmt;
use std::sync::Arc;

use crate::keyspace::{Keyspace, KeyspaceError};

/// What came with a request to say who asks.
#[derive(Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// The metadata `token`, or `authorization` without `Bearer `.
    pub token: Option<&'a str>,
    /// The common name of the verified certificate of the client's connection.
    pub common_name: Option<&'a str>,
    /// It came by way of the JSON gateway, whose own certificate says nothing about the client.
    pub from_gateway: bool,
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("token", &self.token.map(|_| "[redacted]"))
            .field("common_name", &self.common_name)
            .field("from_gateway", &self.from_gateway)
            .finish()
    }
}

/// Where clients get the keyspace from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gate(Keyspace);

/// For whom a [`Keyspace`] handle speaks.
#[derive(Clone)]
pub(crate) enum Asker {
    /// This member itself: nothing is asked of it but what apply asks of everybody.
    Member,
    /// A client that showed nothing.
    Nobody,
    /// A client with credentials, which have not been looked at yet.
    Client(Arc<Shown>),
}

/// Credentials, kept for as long as the handle.
pub(crate) struct Shown {
    pub(super) token: Option<String>,
    pub(super) common_name: Option<String>,
}

impl Gate {
    /// A gate before `keyspace`, which is the member's own handle.
    pub fn new(keyspace: Keyspace) -> Gate {
        Gate(keyspace)
    }

    /// The keyspace for a client. Its credentials are kept, and looked at by each call that needs them; with a stream
    /// they are looked at for each message. Nothing is refused here: what a client may not do, the call refuses.
    pub fn admit(&self, credentials: &Credentials<'_>) -> Result<Keyspace, KeyspaceError> {
        let names = self.0.0.authority.takes_common_names() && !credentials.from_gateway;
        let common_name = credentials.common_name.filter(|_| names);
        let asker = match (credentials.token, common_name) {
            (None, None) => Asker::Nobody,
            (token, common_name) => Asker::Client(Arc::new(Shown {
                token: token.map(str::to_owned),
                common_name: common_name.map(str::to_owned),
            })),
        };
        Ok(self.0.speaking_for(asker))
    }

    /// The member's own handle: headers, health and metrics, never a client's call.
    pub fn own(&self) -> &Keyspace {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_print_no_token() {
        let shown = Credentials { token: Some("abc.17"), ..Credentials::default() };
        assert!(!format!("{shown:?}").contains("abc"));
    }
}
