//! The window in which things are counted, and whose CPU time meanwhile.

use std::{
    io::{BufRead as _, Read as _},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, bail};

use crate::usage::{Group, Sample};

#[derive(Debug, clap::Args)]
pub(crate) struct Window {
    /// Before the window opens.
    #[arg(long, default_value_t = 2.0)]
    warm_up_seconds: f64,
    #[arg(long)]
    seconds: f64,
    /// Processes whose CPU time is counted: NAME=PID,PID,… as often as needed.
    #[arg(long = "pids")]
    pub(crate) processes: Vec<Group>,
}

/// What opens and closes a window.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Edges {
    /// The clock.
    Timed,
    /// A line on standard input, and its end: who gives them knows what is to be counted.
    Told,
}

impl Window {
    pub(crate) fn warm_up(&self) -> anyhow::Result<Duration> {
        Duration::try_from_secs_f64(self.warm_up_seconds).context("--warm-up-seconds")
    }

    pub(crate) fn length(&self) -> anyhow::Result<Duration> {
        Duration::try_from_secs_f64(self.seconds).context("--seconds")
    }

    /// Waits for the window to open and to close, says so in `open`, and reads CPU time at both edges.
    pub(crate) fn observe(&self, edges: Edges, open: &AtomicBool) -> anyhow::Result<(Sample, Sample)> {
        let (warm_up, length) = (self.warm_up()?, self.length()?);
        thread::sleep(warm_up);
        let told = match edges {
            Edges::Timed => None,
            Edges::Told => Some(listen()),
        };
        if let Some(told) = &told
            && told.recv_timeout(length).is_err()
        {
            bail!("nobody opened the window within {} s", length.as_secs());
        }
        let before = Sample::take(&self.processes)?;
        open.store(true, Ordering::Relaxed);
        match told {
            None => thread::sleep(length),
            Some(told) => {
                if told.recv_timeout(length) == Err(RecvTimeoutError::Timeout) {
                    bail!("nobody closed the window within {} s", length.as_secs());
                }
            }
        }
        open.store(false, Ordering::Relaxed);
        Ok((before, Sample::take(&self.processes)?))
    }
}

/// One message for the first line of standard input; the end of the channel is the end of the input.
fn listen() -> mpsc::Receiver<()> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        if input.read_line(&mut String::new()).is_ok_and(|bytes| bytes > 0) && tell.send(()).is_ok() {
            // What more there is means nothing.
            let _ = input.read_to_end(&mut Vec::new());
        }
    });
    told
}
