//! Memory that was never touched belongs to nobody: a virtual machine's host backs a page on its first use,
//! which costs many times what the page's own work costs. Whoever runs first would pay for all.

use std::{thread, time::Instant};

use anyhow::Context;
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;
const PAGE: usize = 4096;

/// Touches `mib` MiB, but no more than three quarters of what is available, and gives them back.
pub(crate) fn touch(mib: u64) -> anyhow::Result<Value> {
    let bytes = (mib * MIB).min(available()? / 4 * 3);
    let started = Instant::now();
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut memory: Vec<u8> = vec![0; (bytes / threads) as usize];
                for page in memory.chunks_mut(PAGE) {
                    page[0] = 1;
                }
                std::hint::black_box(&memory);
            });
        }
    });
    Ok(json!({"touched_mib": bytes / MIB, "seconds": started.elapsed().as_secs_f64()}))
}

/// Bytes that can be used without swapping.
fn available() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    text.lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|kib| kib.trim().parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .context("/proc/meminfo does not say what is available")
}
