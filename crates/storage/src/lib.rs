//! Ottla: the segmented commit log, recovery, retention, checkpoints and group commit.
