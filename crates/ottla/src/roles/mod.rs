//! Starts the roles of a node, keeps them until they are told to end, and ends them in order: the
//! broker first, because its controlled shutdown needs a controller.

mod controller;
mod quorum_watch;
pub(crate) mod signals;

use std::process::ExitCode;

use anyhow::Context;
use broker::{broker::Broker, http};
use protocol::IncarnationId;
use tokio_util::sync::CancellationToken;

use crate::config::NodeConfig;

/// Runs the node until a signal or its own end. The exit code is 0 after an orderly end.
pub(crate) fn run(node: NodeConfig) -> anyhow::Result<ExitCode> {
    for key in &node.properties.without_effect {
        tracing::warn!(key, "this configuration key of Kafka's has no effect in Ottla");
    }
    let descriptors = storage::descriptors::raise_limit();
    if let Some(warning) = storage::descriptors::low_limit_warning(descriptors, EXPECTED_PARTITIONS) {
        tracing::warn!("{warning}");
    }
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("ottla-worker")
        .build()
        .context("cannot start the runtime")?
        .block_on(serve(node))
}

/// How many partitions a node should have descriptors for without a warning.
const EXPECTED_PARTITIONS: usize = 1000;

async fn serve(node: NodeConfig) -> anyhow::Result<ExitCode> {
    let recorder = http::recorder();
    let metrics = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|error| anyhow::anyhow!("{error}"))?;
    let ending = signals::watch()?;
    let incarnation = IncarnationId::random();

    let controller_stop = CancellationToken::new();
    let running_controller = match &node.controller {
        Some(settings) => Some(
            controller::start(
                &node,
                settings,
                incarnation,
                metrics.clone(),
                controller_stop.clone(),
            )
            .await?,
        ),
        None => None,
    };
    let mut result = Ok(());
    if let Some(config) = node.broker {
        let broker = Broker::start(config, incarnation, metrics).await?;
        for (listener, address) in broker.client_addresses() {
            tracing::info!(listener, %address, "listening for clients");
        }
        let failed = async {
            match &running_controller {
                Some(controller) => controller.failed().await,
                None => std::future::pending().await,
            }
        };
        let stop = CancellationToken::new();
        let told = stop.clone();
        tokio::spawn(async move {
            ending.cancelled().await;
            told.cancel();
        });
        result = tokio::select! {
            ended = broker.run(stop) => ended.map_err(anyhow::Error::from),
            why = failed => Err(why),
        };
    } else if let Some(controller) = &running_controller {
        tokio::select! {
            () = ending.cancelled() => {}
            why = controller.failed() => result = Err(why),
        }
    }
    controller_stop.cancel();
    if let Some(controller) = running_controller {
        controller.stopped().await;
        tracing::info!("controller stopped");
    }
    result.map(|()| ExitCode::SUCCESS)
}
