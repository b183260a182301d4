//! One client connection: a task that reads frames, starts requests and writes answers in order.
//!
//! Kafka answers the requests of a connection one after the other. So does this task, with one
//! exception that keeps its order: Produce requests that follow each other enqueue their appends one
//! after the other and wait for their acknowledgements together.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Buf, Bytes};
use futures::{
    StreamExt,
    future::{BoxFuture, OptionFuture},
    stream::FuturesOrdered,
};
use kafka_protocol::{messages::ApiKey, protocol::StrBytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout_at},
};
use tokio_util::{codec::FramedRead, sync::CancellationToken};

use super::{
    Answer, Request,
    dispatch::{self, Checked, Classified, Refused},
    frame::{FrameDecoder, FrameError},
    handlers::api_versions,
};
use crate::{complaints::Complaints, context::BrokerContext, metric_names};

/// Produce requests of one connection that may wait for their acknowledgements together.
const PIPELINE: usize = 64;

/// Bytes that Produce requests may take which follow one that waits: what one connection holds in memory
/// is this and two requests of the largest size.
const PIPELINE_BYTES: usize = 32 << 20;

/// Where a connection came in.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionInfo {
    /// The listener's name.
    pub(crate) listener: Arc<str>,
    /// The client's address.
    pub(crate) peer: SocketAddr,
    /// About clients whose connections have to be closed.
    pub(crate) complaints: Complaints,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("answer could not be written: {0}")]
    Write(#[from] std::io::Error),
    #[error("idle, or not reading its answers, for connections.max.idle.ms")]
    Idle,
    #[error("the handler said so")]
    Handler,
}

/// Serves a connection until its client leaves, breaks a rule or idles, or `stop` is cancelled. What
/// has been read is answered before a stop takes effect.
pub(crate) async fn serve<S>(stream: S, broker: BrokerContext, info: ConnectionInfo, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (peer, complaints) = (info.peer, info.complaints.clone());
    match run(stream, broker, info, stop).await {
        Ok(()) => tracing::debug!(%peer, "connection closed by client"),
        Err(Ended::Frame(FrameError::Io(error)) | Ended::Write(error)) => {
            tracing::debug!(%peer, %error, "connection broke");
        }
        Err(Ended::Idle) => tracing::debug!(%peer, "idle connection closed"),
        Err(error) => match complaints.may_speak() {
            Some(turn) => tracing::warn!(%peer, %error, "connection closed{turn}"),
            None => tracing::debug!(%peer, %error, "connection closed"),
        },
    }
}

async fn run<S>(
    stream: S,
    broker: BrokerContext,
    info: ConnectionInfo,
    stop: CancellationToken,
) -> Result<(), Ended>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let idle = broker.config.connections.idle;
    let (read, mut write) = tokio::io::split(stream);
    let decoder = FrameDecoder::new(broker.config.socket_request_max_bytes);
    let mut frames = FramedRead::with_capacity(read, decoder, 16 * 1024);
    let mut in_flight: FuturesOrdered<InFlight> = FuturesOrdered::new();
    let mut bytes_in_flight = 0;
    let mut only_produce = true;
    // At most one request is being started, so that requests append in the order in which they came, and
    // nothing is read meanwhile: what a client has sent is appended even where it has left by then.
    let mut starting: Option<Start> = None;
    let mut held: Option<Classified> = None;
    let mut deadline = Instant::now() + idle;

    loop {
        let may_start = |next: &mut Classified| match next {
            Classified::UnknownApiVersions { .. } => true,
            Classified::Request(next) => {
                in_flight.is_empty()
                    || (only_produce
                        && next.key == ApiKey::Produce
                        && in_flight.len() < PIPELINE
                        && bytes_in_flight + next.body.len() <= PIPELINE_BYTES)
            }
        };
        if let Some(next) = held.take_if(may_start) {
            match next {
                Classified::Request(checked) => {
                    only_produce = checked.key == ApiKey::Produce;
                    starting = Some(start(&broker, &info, checked)?);
                }
                Classified::UnknownApiVersions { correlation_id } => {
                    let answer = api_versions::unsupported(correlation_id).map_err(Refused::from)?;
                    in_flight.push_back(Box::pin(std::future::ready((0, Ok(Some(answer))))));
                }
            }
        }
        tokio::select! {
            biased;
            Some((bytes, answer)) = in_flight.next(), if !in_flight.is_empty() => {
                bytes_in_flight -= bytes;
                if let Some(answer) = answer? {
                    let close = answer.close;
                    write_answer(&mut write, answer, idle).await?;
                    if close {
                        return Err(Ended::Handler);
                    }
                }
                deadline = Instant::now() + idle;
            }
            Some(started) = OptionFuture::from(starting.as_mut()) => {
                starting = None;
                let (bytes, pending) = started?;
                bytes_in_flight += bytes;
                in_flight.push_back(pending);
            }
            () = stop.cancelled(), if held.is_none() && starting.is_none() && in_flight.is_empty() => {
                return Ok(());
            }
            frame = timeout_at(deadline, frames.next()), if held.is_none() && starting.is_none() => {
                let frame: Bytes = match frame {
                    Err(_) if in_flight.is_empty() => return Err(Ended::Idle),
                    // A long poll is not idleness.
                    Err(_) => {
                        deadline = Instant::now() + idle;
                        continue;
                    }
                    Ok(None) => return Ok(()),
                    Ok(Some(frame)) => frame?,
                };
                deadline = Instant::now() + idle;
                metrics::counter!(metric_names::BYTES_IN).increment(frame.len() as u64 + 4);
                held = Some(dispatch::classify(&frame)?);
            }
        }
    }
}

/// An answer that is being worked on, with the bytes of its request.
type InFlight = BoxFuture<'static, (usize, Result<Option<Answer>, Refused>)>;

/// A request that is being started, with its bytes.
type Start = BoxFuture<'static, Result<(usize, InFlight), Refused>>;

/// Starts a request; what comes back measures itself.
fn start(broker: &BrokerContext, info: &ConnectionInfo, checked: Checked) -> Result<Start, Refused> {
    let Checked {
        key,
        version,
        correlation_id,
        client_id,
        body,
    } = checked;
    let request = Request {
        broker: broker.clone(),
        listener: Arc::clone(&info.listener),
        key,
        version,
        correlation_id,
        client_id: StrBytes::from_string(client_id.unwrap_or_default()),
        client_address: info.peer.ip(),
    };
    let (bytes, began) = (body.len(), std::time::Instant::now());
    let starting = dispatch::begin(request, body)?;
    Ok(Box::pin(async move {
        let pending = starting.await?;
        let measured: InFlight = Box::pin(async move {
            let answer = pending.await;
            let api = metric_names::api_label(key);
            metrics::counter!(metric_names::REQUESTS, "request" => api).increment(1);
            metrics::histogram!(metric_names::REQUEST_SECONDS, "request" => api)
                .record(began.elapsed().as_secs_f64());
            (bytes, answer)
        });
        Ok((bytes, measured))
    }))
}

/// Writes all chunks; a client that does not read them within `limit` is given up.
async fn write_answer<W>(write: &mut W, answer: Answer, limit: Duration) -> Result<(), Ended>
where
    W: AsyncWrite + Unpin,
{
    let bytes: usize = answer.chunks.iter().map(Bytes::len).sum();
    let mut rest = Chunks {
        chunks: answer.chunks,
        at: 0,
    };
    let write_all = async {
        write.write_all_buf(&mut rest).await?;
        write.flush().await
    };
    timeout_at(Instant::now() + limit, write_all)
        .await
        .map_err(|_| Ended::Idle)??;
    metrics::counter!(metric_names::BYTES_OUT).increment(bytes as u64);
    Ok(())
}

/// The chunks of an answer as one buffer, for vectored writes.
struct Chunks {
    chunks: Vec<Bytes>,
    at: usize,
}

impl Buf for Chunks {
    fn remaining(&self) -> usize {
        self.chunks[self.at..].iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.chunks[self.at..]
            .iter()
            .find(|chunk| !chunk.is_empty())
            .map_or(&[], |chunk| &chunk[..])
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [std::io::IoSlice<'a>]) -> usize {
        let chunks = self.chunks[self.at..].iter().filter(|chunk| !chunk.is_empty());
        let mut filled = 0;
        for (slice, chunk) in slices.iter_mut().zip(chunks) {
            *slice = std::io::IoSlice::new(chunk);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let chunk = &mut self.chunks[self.at];
            let step = count.min(chunk.len());
            chunk.advance(step);
            count -= step;
            if chunk.is_empty() {
                self.at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_read_as_one_buffer() {
        let chunks = vec![
            Bytes::from_static(b"ab"),
            Bytes::new(),
            Bytes::from_static(b"cde"),
        ];
        let mut buf = Chunks { chunks, at: 0 };
        assert_eq!(buf.remaining(), 5);
        buf.advance(1);
        assert_eq!(buf.chunk(), b"b");
        buf.advance(1);
        assert_eq!(buf.chunk(), b"cde");
        assert_eq!(buf.copy_to_bytes(3), &b"cde"[..]);
        assert_eq!(buf.remaining(), 0);
    }
}
