//! Doubles for tests of this crate and of the floors above.
//!
//! - [`MemoryView`]: a store that is a map.
//! - [`Model`]: what etcd would answer, written to be obviously right and as slow as that makes it.

mod auth_model;
mod fleet_model;
mod model;
mod view;

pub use self::model::Model;
pub use self::view::MemoryView;
