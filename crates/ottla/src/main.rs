//! The `ottla` binary: parses arguments, starts roles, prints tables.

fn main() {}
