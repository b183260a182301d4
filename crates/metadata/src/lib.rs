//! Ottla: metadata records, the cluster image and its deltas.
