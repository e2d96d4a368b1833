//! Leases of whoever leads.
