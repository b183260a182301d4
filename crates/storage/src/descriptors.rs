//! The process's limit on open files, and the warning when it is low for its partitions.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors to have for a partition: idle it holds its active `.log` alone; rolling and reading
/// older segments take more for a while.
const PER_PARTITION: u64 = 3;
/// Descriptors for everything else: connections, the metadata log, the hint store, readers of old segments.
const RESERVE: u64 = 1_024;
/// Partitions to be ready for, whatever is there at start.
const EXPECTED_PARTITIONS: u64 = 1_000;

/// Raises the soft limit on open files to the hard one, as far as the system lets us, and returns
/// the limit that is in force; `None` stands for no limit.
pub fn raise_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return limit.current;
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::debug!(%error, "the limit on open files could not be raised");
            limit.current
        }
    }
}

/// What to tell the operator when `limit` open files are few for `partitions` replicas.
pub fn low_limit_warning(limit: Option<u64>, partitions: usize) -> Option<String> {
    let limit = limit?;
    let partitions = (partitions as u64).max(EXPECTED_PARTITIONS);
    let wanted = PER_PARTITION.saturating_mul(partitions).saturating_add(RESERVE);
    (limit < wanted).then(|| {
        format!(
            "this process may open {limit} files; {partitions} partitions want at least {wanted}: \
             raise the limit (ulimit -n, LimitNOFILE=), or writes are refused when it is reached"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_limit_is_named_with_what_is_wanted() {
        let text = low_limit_warning(Some(1024), 10).expect("low");
        assert!(text.contains("1024") && text.contains("4024"), "{text}");
        assert!(low_limit_warning(Some(20_000), 10_000).is_some());
        assert_eq!(low_limit_warning(Some(65_536), 10_000), None);
        assert_eq!(low_limit_warning(None, 10_000), None);
    }

    #[test]
    fn the_limit_is_in_force_after_it_was_raised() {
        assert_eq!(raise_limit(), getrlimit(Resource::Nofile).current);
    }
}
