//! `ottla groups reset-offsets`: where to, for which partitions, and what came of it.

use std::process::ExitCode;

use anyhow::Context;
use protocol::grpc::v1::reset_group_offsets_request::To;
use protocol::grpc::v1::{
    AssignedTopic, EarliestOffset, LatestOffset, ResetGroupOffsetsRequest, admin_client::AdminClient,
};
use tonic::transport::Channel;

use super::{Format, answer, failure, moment};
use crate::commands::admin::{check, output::Rows};

/// Set what a group has committed. Says what it would do, unless told to --execute.
#[derive(Debug, clap::Args)]
pub(super) struct ResetOffsets {
    /// The group's name. It must not have members.
    group: String,
    /// Only this topic, as `topic` or `topic:0,1`; default: everything that the group has committed for.
    #[arg(long = "topic", value_name = "TOPIC[:PARTITIONS]")]
    topics: Vec<String>,
    #[command(flatten)]
    to: Where,
    /// Do it.
    #[arg(long, conflicts_with = "dry_run")]
    execute: bool,
    /// Say what would be done, and do nothing: the default.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Where {
    /// To the first record that is kept.
    #[arg(long)]
    to_earliest: bool,
    /// After the last record.
    #[arg(long)]
    to_latest: bool,
    /// To this offset, or the nearest that is there.
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
    /// To the first record at or after this time: `2026-11-21T08:30:00Z`, `2026-11-21T09:30:00.250+01:00`, or
    /// milliseconds since 1970. A time without a zone, `2026-11-21T08:30:00.000`, is UTC.
    #[arg(long, value_name = "TIME", value_parser = moment::time)]
    to_timestamp: Option<i64>,
    /// To the first record that is at most so old: `90s`, `30m`, `2h30m`, `7d`, or, by ISO 8601, `PT2H30M`,
    /// `P7D`.
    #[arg(long, value_name = "DURATION", value_parser = moment::duration)]
    by_duration: Option<i64>,
    /// So many records on from what is committed; back, where negative.
    #[arg(long, value_name = "RECORDS", allow_negative_numbers = true)]
    shift_by: Option<i64>,
}

impl ResetOffsets {
    pub(super) fn request(self) -> anyhow::Result<ResetGroupOffsetsRequest> {
        let to = self.to;
        let to = if to.to_earliest {
            Some(To::Earliest(EarliestOffset {}))
        } else if to.to_latest {
            Some(To::Latest(LatestOffset {}))
        } else {
            to.to_offset
                .map(To::Offset)
                .or_else(|| to.to_timestamp.map(To::TimestampMs))
                .or_else(|| to.by_duration.map(To::DurationMs))
                .or_else(|| to.shift_by.map(To::ShiftBy))
        };
        Ok(ResetGroupOffsetsRequest {
            group_id: self.group,
            topics: self
                .topics
                .iter()
                .map(|text| topic(text))
                .collect::<anyhow::Result<_>>()?,
            to,
            execute: self.execute,
        })
    }
}

/// `topic` or `topic:0,1`.
fn topic(text: &str) -> anyhow::Result<AssignedTopic> {
    let (topic, partitions) = text.split_once(':').unwrap_or((text, ""));
    let partitions = partitions.split(',').filter(|part| !part.is_empty()).map(|part| {
        part.trim()
            .parse()
            .with_context(|| format!("{text:?}: {part:?} is not a partition's number"))
    });
    Ok(AssignedTopic {
        topic: topic.to_owned(),
        partitions: partitions.collect::<anyhow::Result<_>>()?,
    })
}

pub(super) async fn run(
    client: &mut AdminClient<Channel>,
    request: ResetGroupOffsetsRequest,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let (group, executed) = (request.group_id.clone(), request.execute);
    let reply = answer(client.reset_group_offsets(request).await);
    let reply = if executed {
        // Unlike an answer that says so, none at all leaves open what was done.
        reply.context("it may have been done: see `ottla groups lag` before you try again")?
    } else {
        reply?
    };
    check(reply.error.as_ref())?;
    let mut rows = Rows::new(["group", "topic", "partition", "before", "after"]);
    let mut code = ExitCode::SUCCESS;
    for offset in reply.offsets {
        if let Some(sentence) = failure(offset.error.as_ref()) {
            eprintln!("ottla: {}-{}: {sentence}", offset.topic, offset.partition);
            code = ExitCode::FAILURE;
            continue;
        }
        rows.push([
            group.clone().into(),
            offset.topic.into(),
            offset.partition.into(),
            offset.before.into(),
            offset.after.into(),
        ]);
    }
    rows.print(format);
    if !executed {
        eprintln!("ottla: nothing was changed; add --execute to do it");
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_may_name_partitions() {
        let all = topic("orders").expect("valid");
        assert_eq!((all.topic.as_str(), all.partitions.len()), ("orders", 0));
        assert_eq!(topic("orders:0,7").expect("valid").partitions, [0, 7]);
        assert!(topic("orders:x").is_err());
    }
}
