//! The controller's decisions, one after another on an image, without a controller.

mod alter_partitions;
mod brokers;
mod cluster;
mod configs;
mod directories;
mod histories;
mod placement;
mod topics;
