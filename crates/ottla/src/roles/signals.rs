//! SIGTERM and SIGINT: the first asks for an orderly end, the second ends the process at once.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code of a process that was told twice, as shells count a death by SIGTERM.
const TOLD_TWICE: i32 = 128 + 15;

/// Cancelled by the first signal.
pub(crate) fn watch() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let ending = CancellationToken::new();
    let first = ending.clone();
    tokio::spawn(async move {
        for told_before in [false, true] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if told_before {
                tracing::warn!("told a second time: ending at once");
                std::process::exit(TOLD_TWICE);
            }
            tracing::info!("told to end: ending in order");
            first.cancel();
        }
    });
    Ok(ending)
}
