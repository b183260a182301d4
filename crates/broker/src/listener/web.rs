//! HTTP/1 and HTTP/2 on one connection: pages, health and gRPC from one router.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::stall::StallLimit;

/// How long the head of an HTTP/1 request may take, the wait for the next one included, and how long the
/// first request of any connection may take. A shorter `connections.max.idle.ms` holds here too.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// A peer that answers no ping for so long is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Largest HTTP/2 frame: whole batches in few frames.
const MAX_FRAME_BYTES: u32 = 1 << 20;

/// How much a peer may send before this side has read it, in bytes, and how much it may ask for at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Windows {
    /// On one stream.
    pub stream: u32,
    /// On all streams of a connection.
    pub connection: u32,
    /// Streams that a connection may have open: requests at a time.
    pub streams: u32,
}

impl Http2Windows {
    /// For clients: they send requests, not logs.
    pub const CLIENTS: Self = Self {
        stream: 1 << 20,
        connection: 4 << 20,
        streams: 128,
    };
    /// For nodes of the cluster: a stream carries whole logs, over real round-trip times.
    pub const NODES: Self = Self {
        stream: 8 << 20,
        connection: 16 << 20,
        streams: 1024,
    };
}

/// Serves one connection until its peer leaves; after `stop` no further request is taken. A connection
/// that makes no request is closed after `idle`, or sooner, and so is one that does not read its answers for
/// `idle`; one of HTTP/2 that has made a request may wait for as long as it answers pings.
pub(super) async fn serve_connection<S>(
    stream: S,
    router: Router,
    windows: Http2Windows,
    idle: Duration,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let patience = HEADER_TIMEOUT.min(idle);
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(patience);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(windows.stream)
        .initial_connection_window_size(windows.connection)
        .max_frame_size(MAX_FRAME_BYTES)
        .max_concurrent_streams(windows.streams)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    let asked = Arc::new(AtomicBool::new(false));
    let asks = Arc::clone(&asked);
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request| {
        asks.store(true, Ordering::Relaxed);
        router.call(request)
    });
    let connection = builder.serve_connection(TokioIo::new(StallLimit::new(stream, idle)), service);
    tokio::pin!(connection);
    let first_request = sleep(patience);
    tokio::pin!(first_request);
    let (mut stopping, mut waiting) = (false, true);
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    debug!(%error, "HTTP connection broke");
                }
                return;
            }
            () = first_request.as_mut(), if waiting => {
                waiting = false;
                if !asked.load(Ordering::Relaxed) {
                    debug!("HTTP connection without a request closed");
                    return;
                }
            }
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
