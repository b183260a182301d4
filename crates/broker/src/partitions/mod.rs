//! What clients do to partitions that this broker leads, whichever protocol they speak.

pub(crate) mod append;
pub(crate) mod read;
