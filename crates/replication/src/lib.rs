//! Ottla: partition leader and follower state, the in-sync set, the high watermark and replication streams.
