//! What a replication stream knows and decides, without a socket, a disk or a clock.
//!
//! ```text
//!   follower                                                    leader
//!   assign ──► fetch(generation g, position) ────────────────►  view.fetch: continue │ diverged │ refused
//!              append ◄──────────────── batches(g, previous) ◄─  reads while credit lasts
//!              durable ──► fetch(g, position) ───────────────►  view.fetch: the high watermark moves
//!              positions ◄───────────── positions(g) ◄─────────
//! ```
//!
//! A *conversation* is what two brokers say about one partition under one generation. The follower
//! opens it, and opens the next one, by a higher generation, whenever it cannot go on in the old one:
//! another leader epoch, a truncation, a lost connection, an append that failed. Messages of an older
//! generation are dropped on both sides: what was said before a truncation must not count after it.
//!
//! [`LeaderStream`] and [`FollowerStream`] each hold the conversations of one stream. They reach
//! partitions through [`LeaderView`] and [`FollowerView`].

mod followed;
mod follower;
mod leader;
#[cfg(test)]
mod tests;
mod work;

pub use follower::FollowerStream;
pub use leader::{LeaderStream, LeaderView, Order, ReadOrder};
pub use work::{AppendWork, FollowerView, Lane, Mend, MendWork, StreamMessage, Work};
