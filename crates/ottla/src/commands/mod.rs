//! The command line, one file per command.

mod admin;
mod completions;
mod data;
mod dev;
mod dump_log;
mod format;
mod format_quorum;
mod healthcheck;
mod server;

use std::process::ExitCode;

use protocol::ClusterId;

/// What `ottla` can do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Write the identity of a cluster and a node into its log directories, once, before the first start.
    Format(format::Format),
    /// Format the directories of all controllers of a new cluster, once.
    FormatQuorum(format_quorum::FormatQuorum),
    /// Print a fresh cluster id for `ottla format`.
    RandomClusterId,
    /// Run a node: a controller, a broker or both, as its configuration says.
    Server(server::Server),
    /// Run a whole cluster in one process, without any configuration.
    Dev(dev::Dev),
    /// Create, list, describe and delete topics.
    Topics(admin::Topics),
    /// List and describe consumer groups, see how far they lag, set their offsets, delete them.
    Groups(admin::Groups),
    /// Describe and alter configurations.
    Configs(admin::Configs),
    /// Show the nodes of the cluster.
    Cluster(admin::Cluster),
    /// List brokers, have one end in order, forget one that is gone.
    Brokers(admin::Brokers),
    /// Elect leaders.
    Leaders(admin::Leaders),
    /// Write lines from standard input to a topic.
    Produce(data::Produce),
    /// Print the records of a topic as lines.
    Consume(data::Consume),
    /// Print segment files of a log.
    DumpLog(dump_log::DumpLog),
    /// Ask a node whether it is ready.
    Healthcheck(healthcheck::Healthcheck),
    /// Print a script that completes this command line in a shell.
    Completions(completions::Completions),
}

impl Command {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Format(command) => command.run(),
            Self::FormatQuorum(command) => command.run(),
            Self::RandomClusterId => {
                let id = ClusterId::new(protocol::DirectoryId::random().to_string())?;
                println!("{id}");
                Ok(ExitCode::SUCCESS)
            }
            Self::Server(command) => command.run(),
            Self::Dev(command) => command.run(),
            Self::Topics(command) => command.run(),
            Self::Groups(command) => command.run(),
            Self::Configs(command) => command.run(),
            Self::Cluster(command) => command.run(),
            Self::Brokers(command) => command.run(),
            Self::Leaders(command) => command.run(),
            Self::Produce(command) => command.run(),
            Self::Consume(command) => command.run(),
            Self::DumpLog(command) => command.run(),
            Self::Healthcheck(command) => command.run(),
            Self::Completions(command) => command.run(),
        }
    }
}
