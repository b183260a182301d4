//! Ports that a node can have back after it was dead: none that the kernel hands to outgoing connections.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::bail;

/// Below the range that Linux hands out by itself (32768 and up), above what services like to use.
const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;

/// `count` consecutive ports that are free now. Where to look first differs from run to run.
pub(crate) fn free(count: u16) -> anyhow::Result<Vec<u16>> {
    let blocks = (LAST - FIRST) / count;
    let begin = (std::process::id() % u32::from(blocks)) as u16;
    for block in 0..blocks {
        let base = FIRST + (begin + block) % blocks * count;
        let ports: Vec<u16> = (base..base + count).collect();
        let held: Result<Vec<_>, _> = ports
            .iter()
            .map(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)))
            .collect();
        if held.is_ok() {
            return Ok(ports);
        }
    }
    bail!("no {count} consecutive free ports between {FIRST} and {LAST}");
}
