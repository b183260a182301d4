//! The controller role: its Raft node and services on its internal port.

use std::time::Duration;

use anyhow::Context;
use broker::{
    config::ConnectionLimits,
    http::{self, Readiness},
    listener::{self, ConnectionGate, Http2Windows, Services},
};
use controller::{Controller, ControllerConfig, ControllerHandle, RaftSettings};
use metadata::configs::{NodeDefaults, node_default};
use metrics_exporter_prometheus::PrometheusHandle;
use protocol::IncarnationId;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::quorum_watch;
use crate::config::{ControllerSettings, NodeConfig};

/// A controller and its port.
pub(super) struct RunningController {
    handle: ControllerHandle,
    port: JoinHandle<()>,
    stop_port: CancellationToken,
}

/// Binds the internal port, starts the controller and serves.
pub(super) async fn start(
    node: &NodeConfig,
    settings: &ControllerSettings,
    incarnation: IncarnationId,
    metrics: PrometheusHandle,
    stop: CancellationToken,
) -> anyhow::Result<RunningController> {
    let socket = listener::bind(&settings.listen).await?;
    let address = socket.local_addr().context("the internal port has no address")?;
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "the internal port is not authenticated: keep it from anybody but this cluster's nodes");
    }
    let value = |key: &str| {
        node.properties
            .values
            .get(key)
            .map(String::as_str)
            .or_else(|| node_default(key))
    };
    let number = |key: &str| -> anyhow::Result<u64> {
        let text = value(key).with_context(|| format!("required configuration {key} is missing"))?;
        text.trim()
            .parse()
            .with_context(|| format!("invalid value {text:?} for configuration {key}"))
    };
    let rebalance =
        value("auto.leader.rebalance.enable").is_some_and(|text| text.trim().eq_ignore_ascii_case("true"));
    let config = ControllerConfig {
        node_id: node.node_id,
        cluster_id: None,
        incarnation,
        log_dir: settings.log_dir.clone(),
        voters: node
            .voters
            .iter()
            .map(|voter| (voter.id, voter.address.to_string()))
            .collect(),
        session_timeout: Duration::from_millis(number("broker.session.timeout.ms")?),
        rebalance_interval: if rebalance {
            Some(Duration::from_secs(number(
                "leader.imbalance.check.interval.seconds",
            )?))
        } else {
            None
        },
        defaults: NodeDefaults::new(node.properties.values.clone()),
        raft: RaftSettings::default(),
    };
    let stopping = stop.clone();
    let handle = Controller::start(config, stop).await?;
    let active = handle.active();
    let readiness = std::sync::Arc::new(move || {
        let view = active.borrow().clone();
        match view.active {
            Some(active) => Readiness {
                ready: true,
                detail: format!("controller {} is active", active.node_id),
            },
            None => Readiness {
                ready: false,
                detail: "waiting for a quorum of controllers".to_owned(),
            },
        }
    });
    tokio::spawn(quorum_watch::watch(
        handle.active(),
        node.voters.clone(),
        stopping,
    ));
    let services = Services {
        web: http::router(metrics.clone(), readiness, handle.routes()),
        windows: Http2Windows::NODES,
        kafka: None,
    };
    let stop_port = CancellationToken::new();
    tokio::spawn(http::keep_up(metrics.clone(), stop_port.clone()));
    let gate = ConnectionGate::new(ConnectionLimits::default());
    let port = tokio::spawn(listener::serve(socket, services, gate, stop_port.clone()));
    tracing::info!(%address, node = %node.node_id, "controller listening");
    Ok(RunningController {
        handle,
        port,
        stop_port,
    })
}

impl RunningController {
    /// Ends when the controller's Raft has stopped for good.
    pub(super) async fn failed(&self) -> anyhow::Error {
        let mut active = self.handle.active();
        match active.wait_for(|view| view.failed.is_some()).await {
            Ok(view) => match &view.failed {
                Some(why) => anyhow::anyhow!("this controller's Raft has stopped: {why}"),
                None => anyhow::anyhow!("this controller's Raft has stopped"),
            },
            Err(_) => anyhow::anyhow!("this controller's event loop has ended"),
        }
    }

    /// Waits for the end of a controller that was told to stop; its port ends last.
    pub(super) async fn stopped(self) {
        self.handle.stopped().await;
        self.stop_port.cancel();
        if let Err(error) = self.port.await {
            tracing::error!(%error, "the internal port did not end in order");
        }
    }
}
