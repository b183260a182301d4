//! `ottla healthcheck`: asks a node whether it is ready, for scripts and containers.

use std::{
    io::{Read, Write},
    net::{TcpStream, ToSocketAddrs},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;

/// Asks a node whether it is ready. Exit code 0: it is; 1: it is not, or cannot be reached.
#[derive(Debug, clap::Args)]
pub(crate) struct Healthcheck {
    /// A broker's client port, or a controller's internal port.
    #[arg(long, default_value = "localhost:9092")]
    address: String,
    /// Ask whether the process lives instead of whether it is ready.
    #[arg(long)]
    live: bool,
    /// How long to wait for the answer, in milliseconds.
    #[arg(long, default_value_t = 2000, value_name = "MS")]
    timeout: u64,
}

impl Healthcheck {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let timeout = Duration::from_millis(self.timeout.max(1));
        let path = if self.live { "/livez" } else { "/readyz" };
        let answer =
            ask(&self.address, path, timeout).with_context(|| format!("no answer from {}", self.address))?;
        let status = answer.split_whitespace().nth(1).unwrap_or_default();
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body.trim());
        println!("{body}");
        Ok(if status == "200" {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

/// One HTTP/1.0 request; the answer ends with the connection.
fn ask(address: &str, path: &str, timeout: Duration) -> anyhow::Result<String> {
    let mut last = None;
    for resolved in address
        .to_socket_addrs()
        .with_context(|| format!("{address:?} is not host:port"))?
    {
        match TcpStream::connect_timeout(&resolved, timeout) {
            Ok(mut stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                write!(
                    stream,
                    "GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n"
                )?;
                let mut answer = Vec::new();
                stream.take(64 * 1024).read_to_end(&mut answer)?;
                return Ok(String::from_utf8_lossy(&answer).into_owned());
            }
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(|| anyhow::anyhow!("{address} resolves to no address"), Into::into))
}
