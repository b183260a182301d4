//! The coordinators: what a broker keeps for the partitions of internal topics that it leads.
//!
//! [`group`] decides, in memory and without clock, disk or randomness; [`group_runtime`] gives it events
//! and the time, appends the records it returns and sends the answers it gives.

pub mod group;
pub mod group_runtime;
