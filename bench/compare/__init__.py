"""Ottla and Apache Kafka side by side on one machine: see docs/benchmarks.md and bench/compare.sh."""
