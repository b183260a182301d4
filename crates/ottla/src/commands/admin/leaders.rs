//! `ottla leaders`: elect preferred leaders, or any living replica.

use std::process::ExitCode;

use anyhow::ensure;
use protocol::{ErrorCode, grpc::v1::AdminElectLeadersRequest};

use super::{Target, answer, failure, output::Rows};

/// Elect leaders.
#[derive(Debug, clap::Args)]
pub(crate) struct Leaders {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make the preferred replicas lead again.
    Elect {
        /// Only this topic's partitions.
        #[arg(long)]
        topic: Option<String>,
        /// Only these partitions of the topic.
        #[arg(long = "partition", requires = "topic")]
        partitions: Vec<i32>,
        /// Elect any living replica where no in-sync one lives. What only the dead ones have is lost.
        #[arg(long, requires = "topic")]
        unclean: bool,
    },
}

impl Leaders {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let format = self.target.output;
        let Action::Elect {
            topic,
            partitions,
            unclean,
        } = self.action;
        ensure!(topic.as_deref() != Some(""), "--topic is empty");
        let request = AdminElectLeadersRequest {
            topic: topic.unwrap_or_default(),
            partitions,
            unclean,
        };
        self.target.run(async |mut client| {
            let reply = answer(client.admin_elect_leaders(request).await)?;
            let mut rows = Rows::new(["topic", "partition", "result"]);
            let mut code = ExitCode::SUCCESS;
            let not_needed = i32::from(ErrorCode::ElectionNotNeeded.code());
            for election in reply.elections {
                let needed = election
                    .error
                    .as_ref()
                    .is_none_or(|error| error.code != not_needed);
                let result = match failure(election.error.as_ref()) {
                    None => "elected".to_owned(),
                    Some(_) if !needed => "not needed".to_owned(),
                    Some(sentence) => {
                        code = ExitCode::FAILURE;
                        sentence
                    }
                };
                rows.push([election.topic.into(), election.partition.into(), result.into()]);
            }
            rows.print(format);
            Ok(code)
        })
    }
}
