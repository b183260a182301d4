//! The brokers' own files, side by side: below the high watermark, replicas hold the same bytes.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, bail};
use chaos_checker::Partition;
use protocol::batch::{BatchHeader, verify_crc};
use storage::format::FileKind;

/// A batch, short enough to keep all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct BatchPrint {
    base: i64,
    last: i64,
    leader_epoch: i32,
    size: usize,
    /// Of all of its bytes, those in front of the batch's own checksum included.
    checksum: u32,
}

/// Compares each partition's `.log` files in every broker's data directory; gives what differs, and how
/// many batches were compared.
pub(crate) fn compare(
    directories: &[&Path],
    topic: &str,
    ends: &BTreeMap<Partition, i64>,
) -> anyhow::Result<(Vec<String>, usize)> {
    let mut differences = Vec::new();
    let mut compared = 0;
    for (partition, &end) in ends {
        let replicas = directories
            .iter()
            .map(|directory| batches_below(&directory.join(format!("{topic}-{partition}")), end))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let Some((first, others)) = replicas.split_first() else {
            continue;
        };
        compared += first.len();
        for (other, directory) in others.iter().zip(&directories[1..]) {
            if let Some(difference) = first_difference(first, other) {
                differences.push(format!(
                    "partition {partition} below {end}: {} and {} differ: {difference}",
                    directories[0].display(),
                    directory.display()
                ));
            }
        }
    }
    Ok((differences, compared))
}

fn first_difference(one: &[BatchPrint], other: &[BatchPrint]) -> Option<String> {
    let length = one.len().max(other.len());
    (0..length)
        .find(|&index| one.get(index) != other.get(index))
        .map(|index| {
            format!(
                "batch {index} is {:?} here, {:?} there",
                one.get(index),
                other.get(index)
            )
        })
}

/// The batches of a partition's directory that begin below `end`, in order.
fn batches_below(directory: &Path, end: i64) -> anyhow::Result<Vec<BatchPrint>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        if let Some((base, FileKind::Log)) = name.to_str().and_then(FileKind::parse) {
            segments.push((base, entry.path()));
        }
    }
    segments.sort();
    let mut batches = Vec::new();
    for (_, path) in segments {
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let position = bytes.len() - rest.len();
            let header = BatchHeader::parse(rest)
                .with_context(|| format!("{} at position {position}", path.display()))?;
            if header.base_offset.get() >= end {
                return Ok(batches);
            }
            let (batch, behind) = rest.split_at(header.size);
            if let Err(error) = verify_crc(batch) {
                bail!("{} at position {position}: {error}", path.display());
            }
            batches.push(BatchPrint {
                base: header.base_offset.get(),
                last: header.last_offset().get(),
                leader_epoch: header.leader_epoch.get(),
                size: header.size,
                checksum: crc32c::crc32c(batch),
            });
            rest = behind;
        }
    }
    Ok(batches)
}
