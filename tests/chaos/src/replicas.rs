//! The brokers' own files: below the high watermark, replicas hold the same bytes; those of a compacted topic,
//! which each cleans for itself, hold the same last value of each key, which is the checker's to say.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use chaos_checker::{KeyRecord, Partition};
use protocol::{
    batch::{BatchHeader, HEADER_LEN, verify_crc},
    records::{Deltas, OpenBounds, RecordWalk, open},
};
use storage::format::{FileKind, SWAP_SUFFIX};

use crate::reader::key_record;

/// How long a log's files may go on changing although nobody writes: cleaners come to an end.
const CLEAN: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(50);

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
    let mut batches = Vec::new();
    each_batch_below(directory, end, |header, batch| {
        batches.push(BatchPrint {
            base: header.base_offset.get(),
            last: header.last_offset().get(),
            leader_epoch: header.leader_epoch.get(),
            size: header.size,
            checksum: crc32c::crc32c(batch),
        });
        Ok(())
    })?;
    Ok(batches)
}

/// What a partition of a compacted topic holds in a broker's data directory below `end`. A cleaner may
/// exchange files meanwhile: what counts is a look before and after which they were the same.
pub(crate) fn keys_below(directory: &Path, end: i64) -> anyhow::Result<Vec<KeyRecord>> {
    let deadline = Instant::now() + CLEAN;
    loop {
        let before = Listing::of(directory)?;
        let records = read_keys_below(directory, end);
        if before.is_whole() && Listing::of(directory)? == before {
            return records;
        }
        if Instant::now() > deadline {
            bail!(
                "{} still changes after {} s without writes",
                directory.display(),
                CLEAN.as_secs()
            );
        }
        std::thread::sleep(LOOK);
    }
}

/// The files of a directory: name, inode, size.
#[derive(Debug, PartialEq, Eq)]
struct Listing(BTreeSet<(String, u64, u64)>);

impl Listing {
    fn of(directory: &Path) -> anyhow::Result<Self> {
        let mut files = BTreeSet::new();
        for entry in
            fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?
        {
            let entry = entry?;
            // One that has gone since is no longer listed.
            if let Ok(metadata) = entry.metadata() {
                let name = entry.file_name().to_string_lossy().into_owned();
                files.insert((name, metadata.ino(), metadata.len()));
            }
        }
        Ok(Self(files))
    }

    /// No segment is being put in the place of others.
    fn is_whole(&self) -> bool {
        !self.0.iter().any(|(name, _, _)| name.ends_with(SWAP_SUFFIX))
    }
}

fn read_keys_below(directory: &Path, end: i64) -> anyhow::Result<Vec<KeyRecord>> {
    let mut records = Vec::new();
    each_batch_below(directory, end, |header, batch| {
        let opened = open(header.compression()?, &batch[HEADER_LEN..], OpenBounds::STORED)?;
        let mut walk = RecordWalk::keeping(opened, header, Deltas::Ascending);
        while let Some(view) = walk.next_record()? {
            let record = walk.record();
            records.push(key_record(
                header.base_offset.get() + i64::from(view.offset_delta),
                view.key.map(|key| key.of(record)),
                view.value.map(|value| value.of(record)),
                view.headers(record).into_iter(),
            ));
        }
        Ok(())
    })?;
    Ok(records)
}

/// Gives the batches of a partition's directory that begin below `end`, in order, each with its header.
fn each_batch_below(
    directory: &Path,
    end: i64,
    mut to: impl FnMut(&BatchHeader, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for path in segments(directory)? {
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let position = bytes.len() - rest.len();
            let at = || format!("{} at position {position}", path.display());
            let header = BatchHeader::parse(rest).with_context(at)?;
            if header.base_offset.get() >= end {
                return Ok(());
            }
            let (batch, behind) = rest.split_at(header.size);
            verify_crc(batch).with_context(at)?;
            to(&header, batch).with_context(at)?;
            rest = behind;
        }
    }
    Ok(())
}

/// The files with batches, in order.
fn segments(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        if let Some((base, FileKind::Log)) = name.to_str().and_then(FileKind::parse) {
            segments.push((base, entry.path()));
        }
    }
    segments.sort();
    Ok(segments.into_iter().map(|(_, path)| path).collect())
}
