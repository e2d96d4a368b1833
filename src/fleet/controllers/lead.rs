//! What a decider needs of having been elected.

use quorate_core::api::pb::internal::FleetFence;

use crate::fleet::store::Guard;

/// The lead, as far as whoever writes in its name is concerned.
pub trait Lead: Send + Sync {
    /// What every write carries: the key that it holds, and the revision at which it won it. The entry itself looks
    /// whether that still stands.
    fn fence(&self) -> FleetFence;

    /// Whether it is held at this moment, by the clock: to stop early, never to be sure.
    fn is_held(&self) -> bool;
}

impl Lead for Guard {
    fn fence(&self) -> FleetFence {
        FleetFence { key: self.key().clone(), create_revision: self.revision() }
    }

    fn is_held(&self) -> bool {
        Guard::is_held(self)
    }
}
