//! From a frame to a handler. No request is interpreted here.

use std::pin::Pin;

use bytes::Bytes;
use kafka_protocol::{
    messages::ApiKey,
    protocol::{Decodable, Encodable, HeaderVersion},
};
use protocol::guard;

use super::{Answer, Request, api, handlers, request::EncodeError};

/// Why a request is not answered: the connection is closed, as Kafka does.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// The guard found a length or count that does not fit the frame.
    #[error("malformed request: {0}")]
    Malformed(#[from] guard::GuardError),
    /// No such API here.
    #[error("API key {0} is not served")]
    UnknownApi(i16),
    /// A client that means to authenticate, where nobody needs to.
    #[error("a SASL client on a PLAINTEXT port; set security.protocol=PLAINTEXT at the client")]
    Sasl,
    /// The API is served, but not in this version.
    #[error("{key:?} is not served in version {version}")]
    UnsupportedVersion {
        /// Which API.
        key: ApiKey,
        /// The client's version.
        version: i16,
    },
    /// The codec could not read what the guard let pass.
    #[error("{key:?} version {version} cannot be decoded: {reason}")]
    Undecodable {
        /// Which API.
        key: ApiKey,
        /// Which version.
        version: i16,
        /// What the codec said.
        reason: String,
    },
    /// The answer could not be written.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A produce request without acknowledgement failed: closing is the only way to tell.
    #[error("produce with acks=0 failed: {0}")]
    Unacknowledged(protocol::ErrorCode),
}

/// A request that is being started: what comes out is worked on from then on.
pub(crate) type Starting = Pin<Box<dyn Future<Output = Result<Pending, Refused>> + Send>>;

/// An answer that is being worked on. `None`: the request has no answer (acks=0).
pub(crate) type Pending = Pin<Box<dyn Future<Output = Result<Option<Answer>, Refused>> + Send>>;

/// A frame whose header was read and whose body the guard has passed.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) key: ApiKey,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) client_id: Option<String>,
    pub(crate) body: Bytes,
}

/// What a frame asks for.
#[derive(Debug)]
pub(crate) enum Classified {
    /// A request for a handler.
    Request(Checked),
    /// An ApiVersions version that is not known: answered without reading its body.
    UnknownApiVersions {
        /// Echoed in the answer.
        correlation_id: i32,
    },
}

fn unknown(key: i16) -> Refused {
    match ApiKey::try_from(key) {
        Ok(ApiKey::SaslHandshake | ApiKey::SaslAuthenticate) => Refused::Sasl,
        _ => Refused::UnknownApi(key),
    }
}

/// Reads a frame's header and lets the guard check its body.
pub(crate) fn classify(frame: &Bytes) -> Result<Classified, Refused> {
    // The first eight bytes are the same in every header version.
    let Some(&[k0, k1, v0, v1, c0, c1, c2, c3]) = frame.first_chunk::<8>() else {
        return Err(Refused::UnknownApi(-1));
    };
    let (key, version) = (i16::from_be_bytes([k0, k1]), i16::from_be_bytes([v0, v1]));
    let api = api::find(key).ok_or_else(|| unknown(key))?;
    if !api.serves(version) {
        if api.key == ApiKey::ApiVersions {
            return Ok(Classified::UnknownApiVersions {
                correlation_id: i32::from_be_bytes([c0, c1, c2, c3]),
            });
        }
        return Err(Refused::UnsupportedVersion {
            key: api.key,
            version,
        });
    }
    let (header, header_len) = guard::parse_header(frame)?;
    let body = frame.slice(header_len..);
    guard::check_body(api.key, version, &body)?;
    Ok(Classified::Request(Checked {
        key: api.key,
        version,
        correlation_id: header.correlation_id,
        client_id: header.client_id,
        body,
    }))
}

/// Decodes the body and starts the handler. For Produce the appends are enqueued when the starting is
/// over, so requests that are started one after the other append in that order; everything else happens
/// when the answer is polled.
pub(crate) fn begin(request: Request, body: Bytes) -> Result<Starting, Refused> {
    if request.key == ApiKey::Produce {
        let message = decode(&request, body)?;
        return Ok(Box::pin(async move {
            let finish: Pending = Box::pin(handlers::produce::begin(request, message).await);
            Ok(finish)
        }));
    }
    let pending = handle(request, body)?;
    Ok(Box::pin(std::future::ready(Ok(pending))))
}

/// Decodes the body and starts a handler that need not keep an order.
fn handle(request: Request, body: Bytes) -> Result<Pending, Refused> {
    match request.key {
        ApiKey::Fetch => {
            let message = decode(&request, body)?;
            Ok(Box::pin(async move {
                Ok(Some(handlers::fetch::handle(&request, message).await))
            }))
        }
        ApiKey::ListOffsets => run(request, body, handlers::list_offsets::handle),
        ApiKey::Metadata => run(request, body, handlers::metadata::handle),
        ApiKey::FindCoordinator => run(request, body, handlers::find_coordinator::handle),
        ApiKey::ApiVersions => run(request, body, handlers::api_versions::handle),
        ApiKey::InitProducerId => run(request, body, handlers::init_producer_id::handle),
        ApiKey::OffsetForLeaderEpoch => run(request, body, handlers::offset_for_leader_epoch::handle),
        ApiKey::AlterConfigs => run(request, body, handlers::alter_configs::handle),
        ApiKey::CreatePartitions => run(request, body, handlers::create_partitions::handle),
        ApiKey::CreateTopics => run(request, body, handlers::create_topics::handle),
        ApiKey::DeleteRecords => run(request, body, handlers::delete_records::handle),
        ApiKey::DeleteTopics => run(request, body, handlers::delete_topics::handle),
        ApiKey::DescribeCluster => run(request, body, handlers::describe_cluster::handle),
        ApiKey::DescribeConfigs => run(request, body, handlers::describe_configs::handle),
        ApiKey::DescribeTopicPartitions => run(request, body, handlers::describe_topic_partitions::handle),
        ApiKey::ElectLeaders => run(request, body, handlers::elect_leaders::handle),
        ApiKey::IncrementalAlterConfigs => run(request, body, handlers::incremental_alter_configs::handle),
        ApiKey::OffsetCommit => run(request, body, handlers::offset_commit::handle),
        ApiKey::OffsetFetch => run(request, body, handlers::offset_fetch::handle),
        ApiKey::JoinGroup => run(request, body, handlers::join_group::handle),
        ApiKey::Heartbeat => run(request, body, handlers::heartbeat::handle),
        ApiKey::LeaveGroup => run(request, body, handlers::leave_group::handle),
        ApiKey::SyncGroup => run(request, body, handlers::sync_group::handle),
        ApiKey::AlterReplicaLogDirs => run(request, body, handlers::alter_replica_log_dirs::handle),
        ApiKey::DescribeLogDirs => run(request, body, handlers::describe_log_dirs::handle),
        ApiKey::DescribeGroups => run(request, body, handlers::describe_groups::handle),
        ApiKey::ListGroups => run(request, body, handlers::list_groups::handle),
        ApiKey::DeleteGroups => run(request, body, handlers::delete_groups::handle),
        ApiKey::OffsetDelete => run(request, body, handlers::offset_delete::handle),
        ApiKey::ConsumerGroupHeartbeat => run(request, body, handlers::consumer_group_heartbeat::handle),
        ApiKey::ConsumerGroupDescribe => run(request, body, handlers::consumer_group_describe::handle),
        other => Err(Refused::UnknownApi(other as i16)),
    }
}

fn decode<M: Decodable>(request: &Request, mut body: Bytes) -> Result<M, Refused> {
    M::decode(&mut body, request.version).map_err(|error| Refused::Undecodable {
        key: request.key,
        version: request.version,
        reason: error.to_string(),
    })
}

fn run<M, R, F, Fut>(request: Request, body: Bytes, handle: F) -> Result<Pending, Refused>
where
    M: Decodable,
    R: Encodable + HeaderVersion,
    F: FnOnce(Request, M) -> Fut,
    Fut: Future<Output = R> + Send + 'static,
{
    let message = decode(&request, body)?;
    let reply_to = request.clone();
    let reply = handle(request, message);
    Ok(Box::pin(async move { Ok(Some(reply_to.answer(&reply.await)?)) }))
}
