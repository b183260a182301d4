//! `ottla groups`: list, describe, lag, reset offsets, delete.

mod moment;
mod reset;

use std::process::ExitCode;

use protocol::ErrorCode;
use protocol::grpc::v1::{
    AdminDeleteGroupsRequest, AssignedTopic, DescribeGroupRequest, DescribeGroupResponse, GroupMember,
    KafkaError, ListGroupsRequest, admin_client::AdminClient,
};
use serde_json::Value;
use tonic::transport::Channel;

use super::{Format, Target, answer, failure, output::Rows};

/// Groups that are asked about at the same time: while a partition has no leader, each answer about it takes
/// seconds.
const AT_A_TIME: usize = 32;

/// List and describe consumer groups, see how far they lag, set their offsets, delete them.
#[derive(Debug, clap::Args)]
pub(crate) struct Groups {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the groups of the whole cluster.
    List {
        /// Only groups in this state: Empty, Stable, Dead; PreparingRebalance, CompletingRebalance of the
        /// classic protocol; Assigning, Reconciling of that of KIP-848.
        #[arg(long = "state", value_name = "STATE")]
        states: Vec<String>,
        /// Only groups of this protocol: classic, or consumer, which is that of KIP-848.
        #[arg(long = "type", value_name = "TYPE")]
        types: Vec<String>,
    },
    /// Show the members of groups, and what each of them reads.
    Describe {
        /// The groups' names.
        #[arg(required = true)]
        groups: Vec<String>,
    },
    /// Show what groups have committed, partition by partition, and how many records they are behind.
    Lag {
        /// The groups' names; none: all.
        groups: Vec<String>,
    },
    /// Set what a group has committed. Says what it would do, unless told to --execute.
    ResetOffsets(reset::ResetOffsets),
    /// Delete groups that have no members, and what they committed.
    Delete {
        /// The groups' names.
        #[arg(required = true)]
        groups: Vec<String>,
    },
}

impl Groups {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let format = self.target.output;
        match self.action {
            Action::List { states, types } => self.target.run(async |mut client| {
                let reply = answer(client.list_groups(ListGroupsRequest { states, types }).await)?;
                let mut rows = Rows::new(["group", "type", "state", "protocol type", "coordinator"]);
                for group in reply.groups {
                    rows.push([
                        group.group_id.into(),
                        group.group_type.into(),
                        group.state.into(),
                        or_none(group.protocol_type),
                        group.coordinator.into(),
                    ]);
                }
                rows.print(format);
                Ok(incomplete(&reply.unavailable))
            }),
            Action::Describe { groups } => self.target.run(async |client| {
                let (found, code) = describe(&client, groups, Missing::Fails).await?;
                print_members(found, format);
                Ok(code)
            }),
            Action::Lag { groups } => self.target.run(async |mut client| {
                let mut code = ExitCode::SUCCESS;
                let (names, missing) = if groups.is_empty() {
                    let listed = answer(client.list_groups(ListGroupsRequest::default()).await)?;
                    code = incomplete(&listed.unavailable);
                    let names = listed.groups.into_iter().map(|group| group.group_id);
                    (names.collect(), Missing::IsGone)
                } else {
                    (groups, Missing::Fails)
                };
                let (found, described) = describe(&client, names, missing).await?;
                print_lag(found, format);
                Ok(if described == ExitCode::SUCCESS {
                    code
                } else {
                    described
                })
            }),
            Action::ResetOffsets(reset) => {
                let request = reset.request()?;
                self.target
                    .run(async |mut client| reset::run(&mut client, request, format).await)
            }
            Action::Delete { groups } => self.target.run(async |mut client| {
                let request = AdminDeleteGroupsRequest { group_ids: groups };
                let reply = answer(client.admin_delete_groups(request).await)?;
                let mut rows = Rows::new(["group"]);
                let mut code = ExitCode::SUCCESS;
                for group in reply.groups {
                    if let Some(sentence) = failure(group.error.as_ref()) {
                        eprintln!("ottla: {}: {sentence}", group.group_id);
                        code = ExitCode::FAILURE;
                    } else {
                        rows.push([group.group_id.into()]);
                    }
                }
                rows.print(format);
                Ok(code)
            }),
        }
    }
}

/// What it means that a group is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// It was asked for by its name.
    Fails,
    /// It was there a moment ago, and has been deleted since.
    IsGone,
}

/// Asks about each group; what goes wrong goes to standard error and into the exit code.
async fn describe(
    client: &AdminClient<Channel>,
    groups: Vec<String>,
    missing: Missing,
) -> anyhow::Result<(Vec<DescribeGroupResponse>, ExitCode)> {
    let mut found = Vec::with_capacity(groups.len());
    let mut code = ExitCode::SUCCESS;
    for some in groups.chunks(AT_A_TIME) {
        let asked: Vec<_> = some
            .iter()
            .map(|group_id| {
                let mut client = client.clone();
                let request = DescribeGroupRequest {
                    group_id: group_id.clone(),
                };
                tokio::spawn(async move { client.describe_group(request).await })
            })
            .collect();
        for (group_id, reply) in some.iter().zip(asked) {
            let reply = answer(reply.await?)?;
            let is_gone = reply.error.as_ref().is_some_and(is_not_found);
            if is_gone && missing == Missing::IsGone {
                continue;
            }
            if let Some(sentence) = failure(reply.error.as_ref()) {
                eprintln!("ottla: {group_id}: {sentence}");
                code = ExitCode::FAILURE;
            } else {
                found.push(reply);
            }
        }
    }
    Ok((found, code))
}

fn is_not_found(error: &KafkaError) -> bool {
    error.code == i32::from(ErrorCode::GroupIdNotFound.code())
}

fn print_members(groups: Vec<DescribeGroupResponse>, format: Format) {
    let mut rows = Rows::new([
        "group",
        "type",
        "state",
        "protocol",
        "epoch",
        "assigned epoch",
        "coordinator",
        "member",
        "member epoch",
        "instance",
        "client",
        "host",
        "assignment",
        "target",
    ]);
    for group in groups {
        let members: Vec<[Value; 7]> = if group.members.is_empty() {
            vec![[const { Value::Null }; 7]]
        } else {
            group.members.iter().map(of_member).collect()
        };
        for [member, epoch, instance, client, host, assignment, target] in members {
            rows.push([
                group.group_id.clone().into(),
                group.group_type.clone().into(),
                group.state.clone().into(),
                or_none(group.protocol.clone()),
                group.group_epoch.into(),
                group.assignment_epoch.into(),
                group.coordinator.into(),
                member,
                epoch,
                instance,
                client,
                host,
                assignment,
                target,
            ]);
        }
    }
    rows.print(format);
}

/// Its id, epoch, instance id, client, host, what it has and what it is to have.
fn of_member(member: &GroupMember) -> [Value; 7] {
    [
        member.member_id.clone().into(),
        member.member_epoch.into(),
        or_none(member.instance_id.clone()),
        member.client_id.clone().into(),
        member.client_host.clone().into(),
        or_none(assigned(&member.assignment)),
        or_none(assigned(&member.target_assignment)),
    ]
}

/// `topic:0,1 other:3`.
fn assigned(topics: &[AssignedTopic]) -> String {
    let topic = |topic: &AssignedTopic| {
        let partitions: Vec<String> = topic.partitions.iter().map(ToString::to_string).collect();
        format!("{}:{}", topic.topic, partitions.join(","))
    };
    topics.iter().map(topic).collect::<Vec<_>>().join(" ")
}

fn print_lag(groups: Vec<DescribeGroupResponse>, format: Format) {
    let mut rows = Rows::new([
        "group",
        "topic",
        "partition",
        "committed offset",
        "end offset",
        "lag",
        "member",
    ]);
    for group in groups {
        for offset in group.offsets {
            rows.push([
                group.group_id.clone().into(),
                offset.topic.into(),
                offset.partition.into(),
                offset.committed_offset.into(),
                offset.end_offset.into(),
                offset.lag.into(),
                or_none(offset.member_id),
            ]);
        }
    }
    rows.print(format);
}

/// Says whose groups are missing.
fn incomplete(unavailable: &[String]) -> ExitCode {
    for broker in unavailable {
        eprintln!("ottla: the list is not complete: {broker}");
    }
    if unavailable.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn or_none(text: String) -> Value {
    if text.is_empty() { Value::Null } else { text.into() }
}
