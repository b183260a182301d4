//! A whole cluster in one process of the real binary, for as long as a test holds it.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::Client;

/// How long a node may take to be ready; generous, for machines with more to do.
const READY_WITHIN: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The unit of the times in /proc, on every machine.
const TICK: Duration = Duration::from_millis(10);
/// How often another port is tried.
const PORTS_TO_TRY: usize = 5;
/// Where `ottla dev` has its internal ports, above the client port.
const PORT_DISTANCES: [u16; 3] = [0, 10_000, 10_100];

/// How far apart client ports are given: there is room for a neighbour or two.
const APART: usize = 4;
/// Client ports of one test process lie in the first part of each block of ports, so that one node's
/// internal ports never are another's.
const BLOCK: usize = 200;
const PER_BLOCK: usize = 24;
const FIRST_PORT: usize = 12_000;
const BLOCKS: usize = 50;

/// A running `ottla dev`. Dropping it ends the process and removes its data.
pub(crate) struct DevNode {
    process: Child,
    settings: Vec<String>,
    address: SocketAddr,
    dir: TempDir,
}

impl DevNode {
    /// The node that all tests of a binary share, started by whoever comes first and ended by whoever
    /// leaves last.
    pub(crate) fn shared() -> Arc<Self> {
        static NODE: Mutex<Weak<DevNode>> = Mutex::new(Weak::new());
        let mut node = NODE.lock().unwrap_or_else(PoisonError::into_inner);
        node.upgrade().unwrap_or_else(|| {
            let started = Arc::new(Self::start(&[]));
            *node = Arc::downgrade(&started);
            started
        })
    }

    /// Starts a node with these `--set` configurations and waits until it is ready.
    pub(crate) fn start(settings: &[&str]) -> Self {
        // Between the look for a free port and its use somebody else may take it.
        (0..PORTS_TO_TRY)
            .find_map(|_| Self::try_start(settings))
            .expect("a port that stays free")
    }

    /// The same; nothing where its port is taken.
    fn try_start(settings: &[&str]) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        let mut node = Self {
            process: spawn(dir.path(), port, &settings),
            settings,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            dir,
        };
        node.becomes_ready().then_some(node)
    }

    /// Ends the process without a word (SIGKILL) and starts it again over the same data.
    pub(crate) fn kill_and_restart(&mut self) {
        self.process.kill().expect("the process runs");
        self.process.wait().expect("the process ends");
        self.process = spawn(self.dir.path(), self.address.port(), &self.settings);
        assert!(self.becomes_ready(), "the port was taken meanwhile");
    }

    /// Waits until the node is ready; false where its port is taken.
    fn becomes_ready(&mut self) -> bool {
        let deadline = Instant::now() + READY_WITHIN;
        while !self.is_ready() {
            if !self.is_running() {
                let log = self.log();
                assert!(log.contains("in use"), "the node ended:\n{log}");
                return false;
            }
            assert!(
                Instant::now() < deadline,
                "the node is not ready:\n{}",
                self.log()
            );
            thread::sleep(LOOK_AGAIN);
        }
        true
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A new connection.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// What the process has written so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Where its data is.
    pub(crate) fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    /// The answer to an HTTP GET, head included; nothing while nobody listens.
    pub(crate) fn http_get(&self, path: &str) -> Option<String> {
        http_get(self.address, path)
    }

    /// The most memory the process has ever had resident, in bytes; `None` where the system does not say.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        self.memory("VmHWM:")
    }

    /// The memory that the process has resident now, in bytes; `None` where the system does not say.
    pub(crate) fn resident_memory(&self) -> Option<u64> {
        self.memory("VmRSS:")
    }

    /// The processor time that the process has had, in user and in system mode; `None` where the system
    /// does not say.
    pub(crate) fn cpu_time(&self) -> Option<Duration> {
        let stat = Path::new("/proc")
            .join(self.process.id().to_string())
            .join("stat");
        let stat = fs::read_to_string(stat).ok()?;
        // The name, in brackets, may hold anything; utime and stime are the 12th and 13th after it.
        let (_, fields) = stat.rsplit_once(')')?;
        let ticks = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u32>().ok())
            .sum::<Option<u32>>()?;
        Some(TICK * ticks)
    }

    fn memory(&self, what: &str) -> Option<u64> {
        let status = Path::new("/proc")
            .join(self.process.id().to_string())
            .join("status");
        let status = fs::read_to_string(status).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(what))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    }

    fn is_ready(&self) -> bool {
        self.http_get("/readyz")
            .is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    fn is_running(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }
}

impl Drop for DevNode {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            let warnings: Vec<_> = log.lines().filter(|line| !line.contains(" INFO ")).collect();
            eprintln!("what the node complained about:\n{}", warnings.join("\n"));
        }
        // Nothing to do about a process that cannot be ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts a process over the data in `dir`, which also gets its log.
fn spawn(dir: &Path, port: u16, settings: &[String]) -> Child {
    let log = File::options().create(true).append(true).open(dir.join("log"));
    let log = log.expect("the log can be written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ottla"));
    command
        .arg("dev")
        .arg("--data")
        .arg(dir.join("data"))
        .args(["--port", &port.to_string()])
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle to the log"))
        .stderr(log);
    for setting in settings {
        command.args(["--set", setting]);
    }
    command.spawn().expect("the binary starts")
}

/// The answer to an HTTP GET, head included; nothing while nobody listens.
pub(super) fn http_get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(READY_WITHIN)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// A client port that was free a moment ago, with the internal ports that belong to it, and that no other
/// test is given, of this process or of another one. All lie below those that the kernel hands out by
/// itself.
pub(crate) fn free_port() -> u16 {
    /// The UDP port of the same number, held to the end of the process, is the claim.
    static CLAIMS: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    // Runs at the same time begin at different places, and go on from there.
    let start = std::process::id() as usize;
    let mut claims = CLAIMS.lock().unwrap_or_else(PoisonError::into_inner);
    for step in claims.len()..BLOCKS * PER_BLOCK {
        let block = (start + step / PER_BLOCK) % BLOCKS;
        let port = (FIRST_PORT + block * BLOCK + step % PER_BLOCK * APART) as u16;
        let Ok(claim) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) else {
            continue;
        };
        if PORT_DISTANCES.iter().all(|distance| is_free(port + distance)) {
            claims.push(claim);
            return port;
        }
    }
    panic!("no port is free");
}
