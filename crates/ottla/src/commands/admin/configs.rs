//! `ottla configs`: describe and alter the configuration of topics, brokers and consumer groups.

use std::{collections::HashMap, process::ExitCode};

use anyhow::{bail, ensure};
use protocol::grpc::v1::{AdminAlterConfigsRequest, AdminConfigScope, DescribeConfigsRequest};

use super::{Target, answer, check, output::Rows, pairs};

/// Describe and alter configurations.
#[derive(Debug, clap::Args)]
pub(crate) struct Configs {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    target: Target,
}

/// Whose configuration.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Resource {
    /// A topic.
    #[arg(long)]
    topic: Option<String>,
    /// A broker, by its node id.
    #[arg(long)]
    broker: Option<i32>,
    /// The default of all brokers.
    #[arg(long)]
    cluster: bool,
    /// A consumer group.
    #[arg(long)]
    group: Option<String>,
}

impl Resource {
    fn wire(self) -> anyhow::Result<(i32, String)> {
        let (scope, name) = match (self.topic, self.broker, self.cluster, self.group) {
            (Some(topic), None, false, None) => (AdminConfigScope::Topic, topic),
            (None, Some(id), false, None) => (AdminConfigScope::Broker, id.to_string()),
            (None, None, true, None) => (AdminConfigScope::Cluster, String::new()),
            (None, None, false, Some(group)) => (AdminConfigScope::Group, group),
            _ => bail!("name one of --topic, --broker, --cluster and --group"),
        };
        Ok((scope as i32, name))
    }
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show every key, its value and where the value comes from.
    Describe {
        #[command(flatten)]
        resource: Resource,
        /// Only keys that are not at their built-in default.
        #[arg(long)]
        changed: bool,
    },
    /// Set and delete keys. They take effect at once.
    Alter {
        #[command(flatten)]
        resource: Resource,
        /// Set a key.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Give a key its default back.
        #[arg(long = "delete", value_name = "KEY")]
        delete: Vec<String>,
        /// Say whether it would be accepted, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

impl Configs {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let format = self.target.output;
        match self.action {
            Action::Describe { resource, changed } => {
                let (scope, name) = resource.wire()?;
                self.target.run(async |mut client| {
                    let reply = answer(
                        client
                            .describe_configs(DescribeConfigsRequest { scope, name })
                            .await,
                    )?;
                    check(reply.error.as_ref())?;
                    let mut rows = Rows::new(["key", "value", "source", "read only"]);
                    for config in reply.configs {
                        if !changed || config.source != "DEFAULT_CONFIG" {
                            rows.push([
                                config.name.into(),
                                config.value.into(),
                                config.source.into(),
                                config.read_only.into(),
                            ]);
                        }
                    }
                    rows.print(format);
                    Ok(ExitCode::SUCCESS)
                })
            }
            Action::Alter {
                resource,
                set,
                delete,
                dry_run,
            } => {
                let (scope, name) = resource.wire()?;
                let set: HashMap<String, String> = pairs(&set)?.into_iter().collect();
                ensure!(
                    !set.is_empty() || !delete.is_empty(),
                    "nothing to do: name --set or --delete"
                );
                let request = AdminAlterConfigsRequest {
                    scope,
                    name,
                    set,
                    delete,
                    validate_only: dry_run,
                };
                self.target.run(async |mut client| {
                    check(answer(client.admin_alter_configs(request).await)?.error.as_ref())?;
                    println!("{}", if dry_run { "would be accepted" } else { "altered" });
                    Ok(ExitCode::SUCCESS)
                })
            }
        }
    }
}
