//! `.log`: a line for each batch, and one for each record where that is wanted.

use std::{fs::File, io::Write, os::unix::fs::FileExt, path::Path};

use protocol::{
    Offset, ProducerId,
    batch::{BatchHeader, Compression, HEADER_LEN, TimestampType, verify_crc},
    records::{Deltas, OpenBounds, RecordView, RecordWalk, open},
};

use super::{DumpError, DumpOptions, DumpSummary};
use crate::{
    error::StorageError,
    scan::{ScanError, Scanner},
};

pub(super) fn dump(
    path: &Path,
    base: Offset,
    options: &DumpOptions,
    out: &mut dyn Write,
) -> Result<DumpSummary, DumpError> {
    let (file, size) = super::open(path)?;
    super::print_title(path, out)?;
    let end = options.max_bytes.map_or(size, |limit| limit.min(size));
    let mut summary = DumpSummary::default();
    writeln!(out, "Log starting offset: {base}")?;
    // Walked over the whole file, so that a limit cuts between batches and not a batch.
    let mut scanner = Scanner::new(&file, 0, size);
    while scanner.position() < end {
        match scanner.next_header() {
            Ok(None) => break,
            Ok(Some((header, position))) => {
                let bytes = read(&file, path, position, header.size)?;
                let valid = verify_crc(&bytes).is_ok() && header.base_offset >= base;
                summary.entries += 1;
                summary.invalid += u64::from(!valid);
                print_header(&header, position, valid, out)?;
                if valid && (options.deep || options.print_data) {
                    print_records(&header, &bytes[HEADER_LEN..], options, out)?;
                }
            }
            Err(ScanError::Damage(error)) => {
                summary.invalid_bytes = size - scanner.position();
                let (bytes, position) = (summary.invalid_bytes, scanner.position());
                writeln!(
                    out,
                    "Found {bytes} invalid bytes at the end of {}, from position {position}: {error}",
                    path.display()
                )?;
                break;
            }
            Err(ScanError::Io(error)) => return Err(StorageError::io("read", path)(error).into()),
        }
    }
    Ok(summary)
}

fn read(file: &File, path: &Path, position: u64, len: usize) -> Result<Vec<u8>, StorageError> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, position)
        .map_err(StorageError::io("read", path))?;
    Ok(bytes)
}

fn print_header(
    header: &BatchHeader,
    position: u64,
    valid: bool,
    out: &mut dyn Write,
) -> Result<(), DumpError> {
    let codec = match header.compression() {
        Ok(Compression::None) => "none",
        Ok(Compression::Gzip) => "gzip",
        Ok(Compression::Snappy) => "snappy",
        Ok(Compression::Lz4) => "lz4",
        Ok(Compression::Zstd) => "zstd",
        Err(_) => "unknown",
    };
    let delete_horizon = header.delete_horizon().map_or_else(
        || "OptionalLong.empty".to_owned(),
        |at| format!("OptionalLong[{at}]"),
    );
    writeln!(
        out,
        "baseOffset: {} lastOffset: {} count: {} baseSequence: {} lastSequence: {} producerId: {} \
         producerEpoch: {} partitionLeaderEpoch: {} isTransactional: {} isControl: {} \
         deleteHorizonMs: {delete_horizon} position: {position} {}: {} size: {} magic: 2 \
         compresscodec: {codec} crc: {} isvalid: {valid}",
        header.base_offset,
        header.last_offset(),
        header.record_count,
        header.base_sequence,
        header.last_sequence(),
        header.producer_id.map_or(-1, ProducerId::get),
        header.producer_epoch,
        header.leader_epoch,
        header.is_transactional(),
        header.is_control(),
        time_name(header),
        header.max_timestamp,
        header.size,
        header.crc,
    )?;
    Ok(())
}

fn time_name(header: &BatchHeader) -> &'static str {
    match header.timestamp_type() {
        TimestampType::CreateTime => "CreateTime",
        TimestampType::LogAppendTime => "LogAppendTime",
    }
}

fn print_records(
    header: &BatchHeader,
    body: &[u8],
    options: &DumpOptions,
    out: &mut dyn Write,
) -> Result<(), DumpError> {
    let opened = header
        .compression()
        .ok()
        .and_then(|codec| open(codec, body, OpenBounds::STORED).ok());
    let Some(opened) = opened else {
        writeln!(out, "| the records are compressed and cannot be opened")?;
        return Ok(());
    };
    let mut walk = RecordWalk::keeping(opened, header, Deltas::Ascending);
    loop {
        match walk.next_record() {
            Ok(Some(record)) => print_record(header, &record, walk.record(), options, out)?,
            Ok(None) => return Ok(()),
            Err(error) => {
                writeln!(out, "| what follows in this batch is no record: {error}")?;
                return Ok(());
            }
        }
    }
}

fn print_record(
    header: &BatchHeader,
    record: &RecordView,
    bytes: &[u8],
    options: &DumpOptions,
    out: &mut dyn Write,
) -> Result<(), DumpError> {
    let offset = header.base_offset.0 + i64::from(record.offset_delta);
    let timestamp = match header.timestamp_type() {
        TimestampType::CreateTime => record.timestamp,
        TimestampType::LogAppendTime => header.max_timestamp,
    };
    let (key, value) = (
        record.key.map(|key| key.of(bytes)),
        record.value.map(|value| value.of(bytes)),
    );
    write!(
        out,
        "| offset: {offset} {}: {timestamp} keySize: {} valueSize: {}",
        time_name(header),
        size_of(key),
        size_of(value),
    )?;
    let sequence = match header.base_sequence {
        base if base >= 0 => (i64::from(base) + i64::from(record.offset_delta)).rem_euclid(1 << 31),
        _ => -1,
    };
    let keys: Vec<_> = record.header_keys(bytes).into_iter().map(text).collect();
    write!(out, " sequence: {sequence} headerKeys: [{}]", keys.join(","))?;
    if header.is_control() {
        write!(out, "{}", control_text(key, value))?;
    } else if options.print_data {
        for (name, part) in [("key", key), ("payload", value)] {
            if let Some(part) = part {
                write!(out, " {name}: {}", text(part))?;
            }
        }
    }
    writeln!(out)?;
    Ok(())
}

fn size_of(part: Option<&[u8]>) -> i64 {
    part.map_or(-1, |part| part.len() as i64)
}

/// Bytes as text of one line: a record may hold anything, a terminal should not be told everything.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = escaped.is_none().then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

/// The meaning of a control record: key = version i16, type i16; a transaction's end has its
/// coordinator's epoch behind the version of its value.
fn control_text(key: Option<&[u8]>, value: Option<&[u8]>) -> String {
    let kind = key.and_then(|key| key.get(2..4));
    let coordinator = value.and_then(|value| value.get(2..6));
    let coordinator = coordinator.map_or_else(String::new, |epoch| {
        let epoch = i32::from_be_bytes([epoch[0], epoch[1], epoch[2], epoch[3]]);
        format!(" coordinatorEpoch: {epoch}")
    });
    match kind {
        Some([0, 0]) => format!(" endTxnMarker: ABORT{coordinator}"),
        Some([0, 1]) => format!(" endTxnMarker: COMMIT{coordinator}"),
        Some(&[high, low]) => format!(" controlType: {}", i16::from_be_bytes([high, low])),
        _ => " controlType: none".to_owned(),
    }
}
