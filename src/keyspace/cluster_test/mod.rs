//! Three members: what clients see of followers, leaders and their change.

mod forwarding;
mod leadership;
mod rig;
mod snapshot;
mod upkeep;
