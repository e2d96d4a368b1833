//! What a registry's operator is promised of a cluster: acceptance tests of requirements, by their numbers.

mod addresses;
mod nine;
mod probes;
mod starts;

pub(crate) use self::addresses::{Options as AddressesOptions, addresses};
pub(crate) use self::probes::{Options as ProbesOptions, probes};
pub(crate) use self::starts::{Options as StartsOptions, starts};
