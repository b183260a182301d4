//! Starts the roles of a node, keeps them until they are told to end, and ends them in order.
