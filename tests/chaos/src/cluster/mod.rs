//! A cluster of real processes in a directory of its own.

mod node;
mod ports;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use uuid::Uuid;

pub(crate) use node::Node;

/// How long nodes may take to become ready, all of them, whatever was done to them before.
const READY: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(100);

/// Three kinds of numbers that fix a cluster.
#[derive(Clone, Debug)]
pub(crate) struct ClusterConfig {
    /// The program under test.
    pub(crate) binary: PathBuf,
    /// An empty directory.
    pub(crate) dir: PathBuf,
    pub(crate) brokers: u32,
    pub(crate) controllers: u32,
    /// `key=value` for every node.
    pub(crate) settings: Vec<String>,
}

/// Its nodes end with it.
#[derive(Debug)]
pub(crate) struct Cluster {
    binary: PathBuf,
    brokers: Vec<Node>,
    controllers: Vec<Node>,
    bootstrap: String,
}

impl Cluster {
    /// Formats the controllers, starts everybody and waits until all are ready.
    pub(crate) fn start(config: &ClusterConfig) -> anyhow::Result<Self> {
        let (brokers, controllers) = (config.brokers as u16, config.controllers as u16);
        let ports = ports::free(2 * brokers + controllers)?;
        let (clients, rest) = ports.split_at(brokers.into());
        let (internals, quorum) = rest.split_at(brokers.into());
        let voters: Vec<_> = quorum
            .iter()
            .enumerate()
            .map(|(index, port)| format!("{}@127.0.0.1:{port}", 101 + index))
            .collect();
        let mut shared = format!("controller.quorum.voters={}\n", voters.join(","));
        for setting in &config.settings {
            shared.push_str(setting);
            shared.push('\n');
        }
        let node = |name: &str, health: u16, properties: String| {
            Node::new(&config.binary, &config.dir, name, health, &properties)
        };
        let controllers = quorum
            .iter()
            .enumerate()
            .map(|(index, &port)| {
                let id = 101 + index;
                let properties = format!(
                    "{shared}process.roles=controller\nnode.id={id}\ncontroller.listener.names=CONTROLLER\n\
                     listeners=CONTROLLER://127.0.0.1:{port}\n"
                );
                node(&format!("controller-{id}"), port, properties)
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let brokers = clients
            .iter()
            .zip(internals)
            .enumerate()
            .map(|(index, (&client, &internal))| {
                let id = 1 + index;
                let listeners = format!("PLAINTEXT://127.0.0.1:{client},INTERNAL://127.0.0.1:{internal}");
                let properties = format!(
                    "{shared}process.roles=broker\nnode.id={id}\nlisteners={listeners}\n\
                     advertised.listeners={listeners}\ninter.broker.listener.name=INTERNAL\n"
                );
                node(&format!("broker-{id}"), client, properties)
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let bootstrap: Vec<_> = clients.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let mut cluster = Self {
            binary: config.binary.clone(),
            brokers,
            controllers,
            bootstrap: bootstrap.join(","),
        };
        cluster.format()?;
        cluster.start_all()?;
        cluster.wait_ready()?;
        Ok(cluster)
    }

    fn format(&self) -> anyhow::Result<()> {
        let cluster_id = self.ottla(&["random-cluster-id"])?;
        for controller in &self.controllers {
            let config = path_text(&controller.config)?;
            self.ottla(&["format", "--cluster-id", cluster_id.trim(), "--config", config])?;
        }
        Ok(())
    }

    /// Runs a command of the binary to its end, and gives what it printed.
    fn ottla(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(&self.binary)
            .args(arguments)
            .output()
            .with_context(|| format!("cannot run {}", self.binary.display()))?;
        ensure!(
            output.status.success(),
            "ottla {} failed: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        String::from_utf8(output.stdout).context("ottla printed something that is no text")
    }

    /// The same for a command that creates something, again until it succeeds: a broker that the machine gave no
    /// time for a session's length counts as dead until it has some again, and in an election of controllers
    /// nobody says what became of a request.
    fn ottla_in_time(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY;
        loop {
            match self.ottla(arguments) {
                Ok(_) => return Ok(()),
                // Names are used once: it was an earlier try.
                Err(error) if error.to_string().contains("TOPIC_ALREADY_EXISTS") => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => std::thread::sleep(LOOK),
            }
        }
    }

    /// A topic with a replica on every broker; its name begins with `name`. `configs` are `key=value`.
    pub(crate) fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        configs: &[String],
    ) -> anyhow::Result<String> {
        let topic = format!("{name}-{}", Uuid::new_v4().simple());
        let (partitions, factor) = (partitions.to_string(), self.brokers.len().to_string());
        let mut arguments = vec![
            "topics",
            "create",
            &topic,
            "--partitions",
            &partitions,
            "--replication-factor",
            &factor,
            "--bootstrap-server",
            &self.bootstrap,
        ];
        for config in configs {
            arguments.extend(["--config", config]);
        }
        self.ottla_in_time(&arguments)?;
        Ok(topic)
    }

    pub(crate) fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    pub(crate) fn brokers(&self) -> &[Node] {
        &self.brokers
    }

    /// A broker by its number, from 1.
    pub(crate) fn broker(&mut self, number: u32) -> &mut Node {
        &mut self.brokers[number as usize - 1]
    }

    /// A controller by its number, from 1.
    pub(crate) fn controller(&mut self, number: u32) -> &mut Node {
        &mut self.controllers[number as usize - 1]
    }

    fn nodes(&mut self) -> impl Iterator<Item = &mut Node> {
        self.controllers.iter_mut().chain(&mut self.brokers)
    }

    /// Wakes who is paused and starts who does not run.
    pub(crate) fn start_all(&mut self) -> anyhow::Result<()> {
        for node in self.nodes() {
            if node.is_paused() {
                node.resume()?;
            }
            node.start()?;
        }
        Ok(())
    }

    /// Says which nodes ended although nobody told them to; they are started again by [`Self::start_all`].
    pub(crate) fn fallen(&mut self) -> anyhow::Result<Vec<String>> {
        let mut fallen = Vec::new();
        for node in self.nodes() {
            if let Some(status) = node.ended()? {
                fallen.push(format!(
                    "{} ended by itself: {status}\n{}",
                    node.name,
                    node.last_words()
                ));
            }
        }
        Ok(fallen)
    }

    /// Waits until every node that runs is ready.
    pub(crate) fn wait_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY;
        for node in self.nodes() {
            while node.is_running() && !node.is_ready() {
                if let Some(status) = node.ended()? {
                    anyhow::bail!("{} ended: {status}\n{}", node.name, node.last_words());
                }
                ensure!(
                    Instant::now() < deadline,
                    "{} is not ready after {} s\n{}",
                    node.name,
                    READY.as_secs(),
                    node.last_words()
                );
                std::thread::sleep(LOOK);
            }
        }
        Ok(())
    }
}

fn path_text(path: &Path) -> anyhow::Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is no UTF-8", path.display()))
}
