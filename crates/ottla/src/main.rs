//! Ottla: the binary: configuration, roles and the command line.

fn main() {}
