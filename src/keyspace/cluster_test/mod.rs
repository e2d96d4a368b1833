//! Three members: what clients see of followers, leaders and their change.

mod fleet;
mod forwarding;
mod leadership;
mod members;
pub(crate) mod rig;
mod snapshot;
mod upkeep;
