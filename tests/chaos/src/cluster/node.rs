//! One node: a process of the real binary, its files, and the signals it is sent.

use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How often something that cannot be waited for is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// An orderly end takes no longer, whatever the cluster is doing.
const ORDERLY_END: Duration = Duration::from_secs(180);

/// A node of the cluster, running or not.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) config: PathBuf,
    pub(crate) data: PathBuf,
    log: PathBuf,
    /// Where it answers whether it is ready.
    health: String,
    binary: PathBuf,
    child: Option<Child>,
    paused: bool,
}

impl Node {
    /// Writes the node's configuration; nothing runs yet.
    pub(crate) fn new(
        binary: &Path,
        dir: &Path,
        name: &str,
        health_port: u16,
        properties: &str,
    ) -> anyhow::Result<Self> {
        let data = dir.join(name);
        let config = dir.join(format!("{name}.properties"));
        let text = format!("{properties}log.dirs={}\n", data.display());
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        Ok(Self {
            name: name.to_owned(),
            config,
            data,
            log: dir.join(format!("{name}.log")),
            health: format!("127.0.0.1:{health_port}"),
            binary: binary.to_owned(),
            child: None,
            paused: false,
        })
    }

    pub(crate) const fn is_running(&self) -> bool {
        self.child.is_some()
    }

    pub(crate) const fn is_paused(&self) -> bool {
        self.paused
    }

    /// Starts the process; it is not waited for.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        if self.child.is_some() {
            return Ok(());
        }
        let log = open_log(&self.log)?;
        let child = Command::new(&self.binary)
            .arg("server")
            .arg("--config")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// `kill -9`, and the process is gone when this returns.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.paused = false;
        if let Some(mut child) = self.child.take() {
            child
                .kill()
                .with_context(|| format!("cannot kill {}", self.name))?;
            child
                .wait()
                .with_context(|| format!("cannot wait for {}", self.name))?;
        }
        Ok(())
    }

    /// SIGTERM and its orderly end. A node that does not end is killed, and that is an error. A process
    /// that was started a moment ago, on a busy machine, is first left to come so far that it listens to
    /// signals: before that, as with any program, SIGTERM just ends it.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + ORDERLY_END;
        while self.child.as_ref().is_some_and(|child| !handles_sigterm(child)) && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
        self.signal(Signal::TERM)?;
        let Some(child) = &mut self.child else {
            return Ok(());
        };
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait()? {
                self.child = None;
                if !status.success() {
                    bail!("{} did not end in order: {status}", self.name);
                }
                return Ok(());
            }
            std::thread::sleep(LOOK);
        }
        self.kill()?;
        bail!(
            "{} did not end within {} s of SIGTERM",
            self.name,
            ORDERLY_END.as_secs()
        );
    }

    pub(crate) fn pause(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)?;
        self.paused = self.child.is_some();
        Ok(())
    }

    pub(crate) fn resume(&mut self) -> anyhow::Result<()> {
        self.paused = false;
        self.signal(Signal::CONT)
    }

    /// Removes all that the node has on its disk. It must not run.
    pub(crate) fn wipe(&self) -> anyhow::Result<()> {
        assert!(self.child.is_none(), "{} runs on the data that goes", self.name);
        fs::remove_dir_all(&self.data).with_context(|| format!("cannot remove {}", self.data.display()))
    }

    /// How the process ended, where it did so by itself.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// Whether the node says that it is ready.
    pub(crate) fn is_ready(&self) -> bool {
        Command::new(&self.binary)
            .args(["healthcheck", "--timeout", "1000", "--address", &self.health])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    /// The last lines of its log, for a person who asks what went wrong.
    pub(crate) fn last_words(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    /// Only ever sent to a child that was not waited for yet: its pid cannot be anybody else's.
    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let Some(child) = &self.child else {
            return Ok(());
        };
        kill_process(Pid::from_child(child), signal)
            .with_context(|| format!("cannot send {signal:?} to {}", self.name))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("chaos: {error:#}");
        }
    }
}

fn open_log(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))
}

/// Whether the process has a handler for SIGTERM (bit 14 of the mask in `/proc`); also where it has ended.
fn handles_sigterm(child: &Child) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{}/status", child.id())) else {
        return true;
    };
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    // A process that has ended has no such line, or an empty mask and no memory.
    let ended = !status.contains("VmSize:");
    ended
        || caught
            .is_none_or(|mask| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & (1 << 14) != 0))
}
