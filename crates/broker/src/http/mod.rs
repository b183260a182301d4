//! Pages for programs and people: `/metrics`, `/livez`, `/readyz`.

mod prometheus;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
pub use prometheus::{MetricsPage, PassingSeries, keep_up, recorder};

/// The media type of Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether a node does its work, with a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Whether clients may be sent here.
    pub ready: bool,
    /// What the node waits for, or that it is ready.
    pub detail: String,
}

/// Answers whether the node is ready, at any time, at once.
pub type ReadinessProbe = Arc<dyn Fn() -> Readiness + Send + Sync>;

#[derive(Clone)]
struct Pages {
    metrics: MetricsPage,
    readiness: ReadinessProbe,
}

/// The pages of a node, and `grpc` beside them. A path that nobody serves is 404, or UNIMPLEMENTED for a
/// gRPC call.
pub fn router(
    metrics: impl Into<MetricsPage>,
    readiness: ReadinessProbe,
    grpc: tonic::service::Routes,
) -> Router {
    let metrics = metrics.into();
    let pages = Router::new()
        .route("/metrics", get(metrics_page))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(Pages { metrics, readiness });
    grpc.into_axum_router()
        .reset_fallback()
        .merge(pages)
        .fallback(not_found)
}

async fn metrics_page(State(pages): State<Pages>) -> Response {
    ([(header::CONTENT_TYPE, METRICS_TYPE)], pages.metrics.render()).into_response()
}

/// The process runs and answers: that is all that a restart could mend.
async fn livez() -> &'static str {
    "alive\n"
}

async fn readyz(State(pages): State<Pages>) -> Response {
    let readiness = (pages.readiness)();
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, readiness.detail + "\n").into_response()
}

async fn not_found(headers: HeaderMap) -> Response {
    let is_grpc = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    if is_grpc {
        return tonic::Status::unimplemented("no such service or method").into_http::<axum::body::Body>();
    }
    (
        StatusCode::NOT_FOUND,
        "not found: there is /metrics, /livez, /readyz\n",
    )
        .into_response()
}
