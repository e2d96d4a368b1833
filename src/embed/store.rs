//! The library of whoever embeds a server: its store, without a wire in between.

use super::Server;
use crate::fleet::store::{Store, StoreError};
use crate::keyspace::auth::{Credentials, Gate};

impl Server {
    /// A store over this server's keyspace, with the rights of a client that shows `credentials`; none are needed as long
    /// as authentication is not enabled. It ends with the server: close it before.
    pub fn store(&self, credentials: &Credentials<'_>) -> Result<Store, StoreError> {
        let keyspace = Gate::new(self.keyspace().clone()).admit(credentials)?;
        Ok(Store::in_process(keyspace))
    }
}
