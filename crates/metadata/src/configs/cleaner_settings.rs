//! A broker's settings for compaction as typed values, after defaults.

use std::time::Duration;

use super::{
    def::ConfigError,
    resolve::{NodeDefaults, node_setting},
};
use crate::ClusterImage;

/// What a cleaner thread must have more of than this, of `log.cleaner.dedupe.buffer.size`.
const DEDUPE_BYTES_PER_THREAD: u64 = 1 << 20;

/// `log.cleaner.*`: what compaction may use on one node.
#[derive(Clone, Debug, PartialEq)]
pub struct CleanerSettings {
    /// `log.cleaner.enable`.
    pub enabled: bool,
    /// `log.cleaner.threads`.
    pub threads: usize,
    /// `log.cleaner.dedupe.buffer.size`, in bytes over all threads.
    pub dedupe_buffer_bytes: u64,
    /// `log.cleaner.io.buffer.load.factor`, 0 to 1.
    pub load_factor: f64,
    /// `log.cleaner.io.buffer.size`, in bytes over all threads.
    pub io_buffer_bytes: u64,
    /// `log.cleaner.io.max.bytes.per.second`, over all threads.
    pub max_bytes_per_second: f64,
    /// `log.cleaner.backoff.ms`.
    pub backoff: Duration,
}

impl CleanerSettings {
    /// What holds on the node, at this image.
    pub fn resolve(image: &ClusterImage, node: &NodeDefaults) -> Self {
        Self {
            enabled: node_setting(image, node, "log.cleaner.enable"),
            threads: node_setting(image, node, "log.cleaner.threads"),
            dedupe_buffer_bytes: node_setting(image, node, "log.cleaner.dedupe.buffer.size"),
            load_factor: node_setting(image, node, "log.cleaner.io.buffer.load.factor"),
            io_buffer_bytes: node_setting(image, node, "log.cleaner.io.buffer.size"),
            max_bytes_per_second: node_setting(image, node, "log.cleaner.io.max.bytes.per.second"),
            backoff: Duration::from_millis(node_setting(image, node, "log.cleaner.backoff.ms")),
        }
    }

    /// Whether the settings go together. Each thread needs memory for a map of keys, or a log of many keys
    /// would be read again and again: more than 1 MiB, by Kafka's rule.
    pub fn check(&self) -> Result<(), ConfigError> {
        let share = self.dedupe_buffer_bytes / self.threads.max(1) as u64;
        if share > DEDUPE_BYTES_PER_THREAD {
            return Ok(());
        }
        Err(ConfigError::Conflict(format!(
            "log.cleaner.dedupe.buffer.size={} is too small for log.cleaner.threads={}: \
             each thread needs more than {DEDUPE_BYTES_PER_THREAD} bytes (1 MiB)",
            self.dedupe_buffer_bytes, self.threads
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConfigResource, records};

    #[test]
    fn defaults_are_kafkas_and_live_values_count_first() {
        let node = NodeDefaults::new([("log.cleaner.threads".to_owned(), "3".to_owned())].into());
        let settings = CleanerSettings::resolve(&ClusterImage::default(), &node);
        let expected = CleanerSettings {
            enabled: true,
            threads: 3,
            dedupe_buffer_bytes: 128 << 20,
            load_factor: 0.9,
            io_buffer_bytes: 512 << 10,
            max_bytes_per_second: f64::MAX,
            backoff: Duration::from_secs(15),
        };
        assert_eq!(settings, expected);
        let live = records::config_record(
            &ConfigResource::ClusterDefault,
            "log.cleaner.io.max.bytes.per.second",
            Some("1000.5"),
        );
        let image = ClusterImage::default().speculate(&[live]).expect("fits");
        let rate = CleanerSettings::resolve(&image, &node).max_bytes_per_second;
        assert!((rate - 1000.5).abs() < f64::EPSILON);
    }

    #[test]
    fn each_thread_needs_its_share_of_memory() {
        let settings = |threads: &str, bytes: &str| {
            let values = [
                ("log.cleaner.threads", threads),
                ("log.cleaner.dedupe.buffer.size", bytes),
            ];
            let values = values.map(|(key, value)| (key.to_owned(), value.to_owned()));
            CleanerSettings::resolve(&ClusterImage::default(), &NodeDefaults::new(values.into()))
        };
        assert_eq!(settings("1", "1048577").check(), Ok(()));
        assert_eq!(settings("127", "134217728").check(), Ok(()));
        let error = settings("128", "134217728").check().expect_err("1 MiB each");
        assert_eq!(
            error.to_string(),
            "log.cleaner.dedupe.buffer.size=134217728 is too small for log.cleaner.threads=128: \
             each thread needs more than 1048576 bytes (1 MiB)"
        );
    }
}
