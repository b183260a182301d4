//! Ottla: listeners, Kafka handlers, the reconciler and the public services.
