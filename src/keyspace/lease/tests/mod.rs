//! The lessor on a clock that the test steps, over a double of the replicated leases and the leader's seat.

mod double;
mod expiry;
mod reigns;
mod renewal;
mod schedules;
mod terms;
