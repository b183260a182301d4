//! `ottla topics`: create, list, describe, delete, add partitions.

use std::{collections::HashMap, process::ExitCode};

use protocol::grpc::v1::{
    AddPartitionsRequest, AdminCreateTopicsRequest, AdminDeleteTopicsRequest, AdminNewTopic,
    AdminTopicResult, DescribeTopicsRequest, ListTopicsRequest,
};

use super::{Target, answer, check, failure, output::Rows, pairs};

/// Create, list, describe and delete topics.
#[derive(Debug, clap::Args)]
pub(crate) struct Topics {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Create a topic.
    Create {
        /// The topic's name.
        name: String,
        /// Number of partitions; default: the cluster's `num.partitions`.
        #[arg(long)]
        partitions: Option<i32>,
        /// Copies of each partition; default: the cluster's `default.replication.factor`.
        #[arg(long)]
        replication_factor: Option<i32>,
        /// Set a configuration key of the topic.
        #[arg(long = "config", value_name = "KEY=VALUE")]
        configs: Vec<String>,
        /// Say what would happen, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// List topics.
    List {
        /// Internal topics too.
        #[arg(long)]
        internal: bool,
    },
    /// Show the partitions of topics: leaders, replicas, in-sync replicas.
    Describe {
        /// The topics' names; none: all.
        names: Vec<String>,
    },
    /// Delete topics and everything in them.
    Delete {
        /// The topics' names.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Raise a topic's number of partitions. Keys move to other partitions.
    AddPartitions {
        /// The topic's name.
        name: String,
        /// The topic's new total.
        #[arg(long)]
        total: i32,
        /// Say what would happen, and do nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

impl Topics {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let format = self.target.output;
        match self.action {
            Action::Create {
                name,
                partitions,
                replication_factor,
                configs,
                dry_run,
            } => {
                let configs: HashMap<String, String> = pairs(&configs)?.into_iter().collect();
                let topic = AdminNewTopic {
                    name,
                    partitions,
                    replication_factor,
                    configs,
                    ..AdminNewTopic::default()
                };
                let request = AdminCreateTopicsRequest {
                    topics: vec![topic],
                    validate_only: dry_run,
                    timeout_ms: None,
                };
                self.target.run(async |mut client| {
                    let reply = answer(client.admin_create_topics(request).await)?;
                    Ok(print_results(reply.topics, format))
                })
            }
            Action::List { internal } => self.target.run(async |mut client| {
                let reply = answer(
                    client
                        .list_topics(ListTopicsRequest {
                            include_internal: internal,
                        })
                        .await,
                )?;
                let mut rows = Rows::new([
                    "topic",
                    "id",
                    "partitions",
                    "replication factor",
                    "under replicated",
                    "offline",
                ]);
                for topic in reply.topics {
                    rows.push([
                        topic.name.into(),
                        topic.topic_id.into(),
                        topic.partitions.into(),
                        topic.replication_factor.into(),
                        topic.under_replicated.into(),
                        topic.offline.into(),
                    ]);
                }
                rows.print(format);
                Ok(ExitCode::SUCCESS)
            }),
            Action::Describe { names } => self.target.run(async |mut client| {
                let reply = answer(client.describe_topics(DescribeTopicsRequest { names }).await)?;
                let mut rows = Rows::new([
                    "topic",
                    "partition",
                    "leader",
                    "leader epoch",
                    "replicas",
                    "isr",
                    "elr",
                ]);
                let mut code = ExitCode::SUCCESS;
                for topic in reply.topics {
                    if let Some(sentence) = failure(topic.error.as_ref()) {
                        eprintln!("ottla: {}: {sentence}", topic.name);
                        code = ExitCode::FAILURE;
                    }
                    for partition in topic.partitions {
                        rows.push([
                            topic.name.clone().into(),
                            partition.partition.into(),
                            if partition.leader < 0 {
                                serde_json::Value::Null
                            } else {
                                partition.leader.into()
                            },
                            partition.leader_epoch.into(),
                            partition.replicas.into(),
                            partition.isr.into(),
                            partition.elr.into(),
                        ]);
                    }
                }
                rows.print(format);
                Ok(code)
            }),
            Action::Delete { names } => self.target.run(async |mut client| {
                let request = AdminDeleteTopicsRequest {
                    names,
                    timeout_ms: None,
                };
                let reply = answer(client.admin_delete_topics(request).await)?;
                Ok(print_results(reply.topics, format))
            }),
            Action::AddPartitions { name, total, dry_run } => self.target.run(async |mut client| {
                let request = AddPartitionsRequest {
                    topic: name.clone(),
                    total_count: total,
                    validate_only: dry_run,
                    timeout_ms: None,
                };
                check(answer(client.add_partitions(request).await)?.error.as_ref())?;
                let mut rows = Rows::new(["topic", "partitions"]);
                rows.push([name.into(), total.into()]);
                rows.print(format);
                Ok(ExitCode::SUCCESS)
            }),
        }
    }
}

/// Prints what succeeded; what failed goes to standard error and into the exit code.
fn print_results(results: Vec<AdminTopicResult>, format: super::Format) -> ExitCode {
    let mut rows = Rows::new(["topic", "id", "partitions", "replication factor"]);
    let mut code = ExitCode::SUCCESS;
    for topic in results {
        if let Some(sentence) = failure(topic.error.as_ref()) {
            eprintln!("ottla: {}: {sentence}", topic.name);
            code = ExitCode::FAILURE;
            continue;
        }
        let count = |count: i32| {
            if count > 0 {
                count.into()
            } else {
                serde_json::Value::Null
            }
        };
        rows.push([
            topic.name.into(),
            topic.topic_id.into(),
            count(topic.partitions),
            count(topic.replication_factor),
        ]);
    }
    rows.print_if_any(format);
    code
}
