//! The node's own hand on what its member keeps, for what runs beside the API.

use std::time::Duration;

use super::bootstrap::ready;
use super::life::{Node, within};
use crate::fleet::error::FleetError;
use crate::keyspace::Keyspace;

impl Node {
    /// The member's own handle of its keyspace, once clients are served. It ends with the member.
    pub async fn member_keyspace(&self, limit: Duration) -> Result<Keyspace, FleetError> {
        let seat = self.stage().seat()?;
        within(limit, "the member's start", ready(&seat.member)).await?;
        Ok(seat.member.keyspace().clone())
    }
}
