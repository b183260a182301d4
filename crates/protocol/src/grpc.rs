//! Messages, clients and servers generated from `proto/ottla/v1` at build time, without `protoc`.
//!
//! Generated code follows prost's own style, so the workspace's documentation and pedantic lints do
//! not apply to it; the .proto files carry the documentation. Its codec bounds what a request of a client
//! takes in memory before it decodes it ([`codec`], [`footprint`]).

pub mod codec;
pub mod footprint;

/// Everything of the package `ottla.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::pedantic
)]
pub mod v1 {
    tonic::include_proto!("ottla.v1");
    include!(concat!(env!("OUT_DIR"), "/bounds.rs"));
}

/// The encoded descriptors of all services, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/ottla_descriptor.bin"));
