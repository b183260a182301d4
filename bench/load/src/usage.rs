//! CPU time of processes and of the machine, as the kernel counts it.

use std::{collections::BTreeMap, str::FromStr, time::Instant};

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

/// Ticks a second in /proc, on every architecture since long ago (USER_HZ).
const TICKS: f64 = 100.0;

/// Processes whose CPU time is added up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    name: String,
    pids: Vec<u32>,
}

impl FromStr for Group {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let Some((name, pids)) = text.split_once('=') else {
            bail!("{text:?} is not NAME=PID,PID,…");
        };
        let pids = pids
            .split(',')
            .map(|pid| pid.parse().with_context(|| format!("{pid:?} is not a pid")))
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            name: name.to_owned(),
            pids,
        })
    }
}

/// Counters at one moment, in seconds of CPU time.
#[derive(Debug)]
pub(crate) struct Sample {
    at: Instant,
    groups: BTreeMap<String, f64>,
    client: f64,
    machine: f64,
    stolen: f64,
}

impl Sample {
    /// Fails where a process has gone: what it used can no longer be told.
    pub(crate) fn take(groups: &[Group]) -> anyhow::Result<Self> {
        let mut sums = BTreeMap::new();
        for group in groups {
            let mut sum = 0.0;
            for pid in &group.pids {
                sum += process(&pid.to_string())
                    .with_context(|| format!("process {pid} ({}) has gone", group.name))?;
            }
            sums.insert(group.name.clone(), sum);
        }
        let (machine, stolen) = machine()?;
        Ok(Self {
            at: Instant::now(),
            groups: sums,
            client: process("self")?,
            machine,
            stolen,
        })
    }

    /// What was used since an earlier sample. `others` is what the machine did beside all of them: kernel
    /// threads that write files back, and neighbours.
    pub(crate) fn since(&self, earlier: &Self) -> Value {
        let mut used = Map::new();
        let client = self.client - earlier.client;
        let machine = self.machine - earlier.machine;
        let mut others = machine - client;
        for (name, now) in &self.groups {
            let group = now - earlier.groups.get(name).copied().unwrap_or_default();
            others -= group;
            used.insert(name.clone(), json!(group));
        }
        used.insert("client".to_owned(), json!(client));
        used.insert("others".to_owned(), json!(others.max(0.0)));
        used.insert("stolen".to_owned(), json!(self.stolen - earlier.stolen));
        Value::Object(used)
    }

    pub(crate) fn seconds_since(&self, earlier: &Self) -> f64 {
        (self.at - earlier.at).as_secs_f64()
    }
}

/// User and system time of a process, all of its threads, in seconds.
fn process(pid: &str) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    process_seconds(&text).with_context(|| format!("cannot read /proc/{pid}/stat"))
}

fn process_seconds(stat: &str) -> Option<f64> {
    // The name, in parentheses, may contain anything. utime and stime are fields 14 and 15; 3 follows it.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS)
}

/// Busy and stolen time of all cores, in seconds.
fn machine() -> anyhow::Result<(f64, f64)> {
    let text = std::fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    machine_seconds(&text).context("/proc/stat is not as expected")
}

fn machine_seconds(stat: &str) -> Option<(f64, f64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    let &[user, nice, system, _idle, _iowait, irq, softirq, stolen, ..] = ticks.as_slice() else {
        return None;
    };
    Some((
        (user + nice + system + irq + softirq) as f64 / TICKS,
        stolen as f64 / TICKS,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_read() {
        let group = Group::from_str("brokers=12,7").expect("well formed");
        assert_eq!(
            group,
            Group {
                name: "brokers".to_owned(),
                pids: vec![12, 7]
            }
        );
        Group::from_str("brokers").expect_err("no pids");
        Group::from_str("brokers=1,x").expect_err("not a pid");
    }

    #[test]
    fn process_times_stand_behind_any_name() {
        let stat = "42 (a) name (R)) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 5 1 1";
        assert_eq!(process_seconds(stat), Some(3.0));
        assert_eq!(process_seconds("42 (cut"), None);
    }

    #[test]
    fn idle_and_waiting_are_not_busy() {
        let stat = "cpu  100 200 300 9999 9999 50 50 25 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(machine_seconds(stat), Some((7.0, 0.25)));
        assert_eq!(machine_seconds("intr 1"), None);
    }
}
