//! Where log lines go: standard error, in UTC, as `OTTLA_LOG` says (default `info`).

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Turns logging on for a server. `OTTLA_LOG` takes filter directives such as
/// `info,controller=debug`.
pub(crate) fn init() {
    let filter =
        EnvFilter::try_from_env("OTTLA_LOG").unwrap_or_else(|_| EnvFilter::new("info,openraft=error"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
