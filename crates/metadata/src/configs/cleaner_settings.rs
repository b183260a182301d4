//! A broker's settings for compaction as typed values, after defaults.

use std::time::Duration;

use super::{
    def::Synonym,
    node_table::{node_def, node_default},
    resolve::{NodeDefaults, node_values},
};
use crate::ClusterImage;

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
            enabled: value(image, node, "log.cleaner.enable"),
            threads: value(image, node, "log.cleaner.threads"),
            dedupe_buffer_bytes: value(image, node, "log.cleaner.dedupe.buffer.size"),
            load_factor: value(image, node, "log.cleaner.io.buffer.load.factor"),
            io_buffer_bytes: value(image, node, "log.cleaner.io.buffer.size"),
            max_bytes_per_second: value(image, node, "log.cleaner.io.max.bytes.per.second"),
            backoff: Duration::from_millis(value(image, node, "log.cleaner.backoff.ms")),
        }
    }
}

/// The nearest value of a node's key that fits it.
fn value<T: std::str::FromStr>(image: &ClusterImage, node: &NodeDefaults, key: &'static str) -> T {
    let def = node_def(key).expect("a key that is looked up is in the table");
    let set = node_values(image, Synonym::of(key), node)
        .map(|found| found.value)
        .filter(|value| def.check(value).is_ok())
        .find_map(|value| value.trim().to_ascii_lowercase().parse().ok());
    set.unwrap_or_else(|| {
        node_default(key)
            .and_then(|value| value.parse().ok())
            .expect("the built-in default is of the key's type")
    })
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
}
