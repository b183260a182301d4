//! Processes of `ottla server`, and of whatever else the binary does, for as long as a test holds them.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{Client, dev_node::http_get};

const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A properties file: `key=value` lines.
pub(crate) fn properties(entries: &[(&str, String)]) -> String {
    let lines: Vec<String> = entries
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    lines.join("\n")
}

/// A broker's properties, with its data in `dir`; its internal port lies 10,000 above `port`.
pub(crate) fn broker_properties(id: i32, port: u16, voters: &str, dir: &Path) -> Vec<(&'static str, String)> {
    let internal = port + 10_000;
    vec![
        ("node.id", id.to_string()),
        ("process.roles", "broker".to_owned()),
        ("controller.quorum.voters", voters.to_owned()),
        (
            "listeners",
            format!("PLAINTEXT://127.0.0.1:{port},INTERNAL://127.0.0.1:{internal}"),
        ),
        ("inter.broker.listener.name", "INTERNAL".to_owned()),
        ("log.dirs", dir.display().to_string()),
    ]
}

/// A controller's properties, with its data in `dir`.
pub(crate) fn controller_properties(
    id: i32,
    port: u16,
    voters: &str,
    dir: &Path,
) -> Vec<(&'static str, String)> {
    vec![
        ("node.id", id.to_string()),
        ("process.roles", "controller".to_owned()),
        ("controller.quorum.voters", voters.to_owned()),
        ("listeners", format!("CONTROLLER://127.0.0.1:{port}")),
        ("log.dirs", dir.display().to_string()),
    ]
}

/// The binary with these arguments, cut off from this process's input and configuration.
pub(crate) fn ottla<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ottla"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// A process of the binary, whose output goes to a file.
pub(crate) struct ServerNode {
    process: Child,
    log: PathBuf,
}

impl ServerNode {
    /// Starts `ottla server` on these properties. Its files are `NAME.properties` and `NAME.log` in `dir`.
    pub(crate) fn start(dir: &Path, name: &str, entries: &[(&str, String)]) -> Self {
        let config = dir.join(format!("{name}.properties"));
        fs::write(&config, properties(entries)).unwrap();
        let mut command = ottla(&["server", "--config"]);
        command.arg(config);
        Self::spawn(command, dir.join(format!("{name}.log")))
    }

    /// Starts any command of the binary.
    pub(crate) fn spawn(command: Command, log: PathBuf) -> Self {
        let file = File::create(&log).unwrap();
        let both = file.try_clone().unwrap();
        Self::spawn_into(command, log, file, both)
    }

    /// Starts any command of the binary whose output is to be whole lines: what it says on standard error goes
    /// to a file of its own.
    pub(crate) fn spawn_apart(command: Command, log: PathBuf, complaints: &Path) -> Self {
        let (out, err) = (File::create(&log).unwrap(), File::create(complaints).unwrap());
        Self::spawn_into(command, log, out, err)
    }

    fn spawn_into(mut command: Command, log: PathBuf, out: File, err: File) -> Self {
        let process = command
            .stdout(out)
            .stderr(err)
            .spawn()
            .expect("the binary starts");
        Self { process, log }
    }

    /// What the process has written so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until `holds` is true of the log.
    pub(crate) fn expect_log(&mut self, within: Duration, what: &str, holds: impl Fn(&str) -> bool) {
        self.expect(within, what, |node| holds(&node.log()));
    }

    /// Waits until the node behind the client port is ready.
    pub(crate) fn expect_ready(&mut self, address: SocketAddr, within: Duration) {
        self.expect(within, "ready", |_| {
            http_get(address, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
        });
    }

    fn expect(&mut self, within: Duration, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + within;
        while !holds(self) {
            let ended = self.process.try_wait().unwrap();
            assert!(ended.is_none(), "{what}: it ended:\n{}", self.log());
            assert!(Instant::now() < deadline, "{what}: not in time:\n{}", self.log());
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Waits for the process to end by itself; what it wrote.
    pub(crate) fn expect_end(&mut self, within: Duration, what: &str) -> (ExitStatus, String) {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return (status, self.log());
            }
            assert!(Instant::now() < deadline, "{what}: it runs on:\n{}", self.log());
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Sends a signal by its name, such as STOP.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.process.id().to_string())
            .status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -{name}");
    }

    /// Ends the process as a crash would.
    pub(crate) fn kill(&mut self) {
        // A stopped process dies too. One that has ended by itself cannot be killed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for ServerNode {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("what {} wrote:\n{}", self.log.display(), self.log());
        }
        self.kill();
    }
}

/// A client port on the loopback interface.
pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// A connection to a client port on the loopback interface.
pub(crate) fn client(port: u16) -> Client {
    Client::connect(loopback(port))
}
