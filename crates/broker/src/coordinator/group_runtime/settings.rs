//! What is set for groups: by the node's own settings, and for single groups by the cluster's configuration,
//! which changes while shards run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use metadata::configs::GroupTimes;
use metadata::delta::ImageDelta;
use metadata::{ClusterImage, ConfigResource};
use tokio::sync::watch;

use crate::config::GroupSettings;
use crate::coordinator::group::{ConsumerOverrides, GroupConfig, GroupId};

/// Where shards see the latest settings.
pub(super) type Settings = watch::Receiver<GroupConfig>;

/// Follows the images.
#[derive(Debug)]
pub(super) struct SettingsWatch {
    latest: watch::Sender<GroupConfig>,
}

impl SettingsWatch {
    /// Begins with the node's own settings.
    pub(super) fn new(settings: &GroupSettings) -> Self {
        Self {
            latest: watch::Sender::new(of_node(settings)),
        }
    }

    /// For one shard.
    pub(super) fn subscribe(&self) -> Settings {
        self.latest.subscribe()
    }

    /// Goes on to a newer image; `delta` lies between it and the one that was followed last.
    pub(super) fn follow(&self, newer: &ClusterImage, delta: &ImageDelta) {
        let mut changed = delta.changed_configs.iter();
        if !changed.any(|resource| matches!(resource, ConfigResource::Group(_))) {
            return;
        }
        let overrides = Arc::new(overrides(newer));
        self.latest.send_if_modified(|config| {
            let differs = config.consumer_overrides != overrides;
            config.consumer_overrides = overrides;
            differs
        });
    }
}

/// What is set for single groups.
fn overrides(image: &ClusterImage) -> BTreeMap<GroupId, ConsumerOverrides> {
    let groups = image.configs.iter().filter_map(|(resource, _)| match resource {
        ConfigResource::Group(group) => Some(group),
        ConfigResource::Topic(_) | ConfigResource::Broker(_) | ConfigResource::ClusterDefault => None,
    });
    groups
        .map(|group| (GroupId::from(group.as_str()), GroupTimes::set_for(image, group)))
        .map(|(group, set)| {
            let own = ConsumerOverrides {
                session_timeout_ms: set.session_timeout_ms,
                heartbeat_interval_ms: set.heartbeat_interval_ms,
            };
            (group, own)
        })
        .collect()
}

fn of_node(settings: &GroupSettings) -> GroupConfig {
    let millis = |time: Duration| i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
    GroupConfig {
        group_min_session_timeout_ms: millis(settings.session_timeout_min),
        group_max_session_timeout_ms: millis(settings.session_timeout_max),
        group_initial_rebalance_delay_ms: millis(settings.initial_rebalance_delay),
        group_max_size: settings.max_size,
        consumer_session_timeout_ms: millis(settings.consumer.session_timeout),
        consumer_heartbeat_interval_ms: millis(settings.consumer.heartbeat_interval),
        consumer_group_max_size: settings.consumer.max_size,
        consumer_assignors: settings.consumer.assignors.clone(),
        consumer_migration_policy: settings.consumer.migration,
        offset_metadata_max_bytes: settings.offset_metadata_max_bytes,
        offsets_retention_ms: i64::try_from(settings.offsets_retention.as_millis()).unwrap_or(i64::MAX),
        offsets_retention_check_interval_ms: u64::try_from(settings.offsets_retention_check.as_millis())
            .unwrap_or(u64::MAX),
        ..GroupConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use metadata::configs::GROUP_CONFIGS;
    use metadata::records;

    use super::*;

    #[test]
    fn what_is_set_for_a_group_is_followed() {
        let watch = SettingsWatch::new(&GroupSettings::default());
        let mut settings = watch.subscribe();
        assert_eq!(
            *settings.borrow_and_update(),
            GroupConfig::default(),
            "both are Kafka's"
        );

        let empty = ClusterImage::default();
        let set = |resource: ConfigResource, key: &str, value: &str| {
            let record = records::config_record(&resource, key, Some(value));
            empty.speculate(&[record]).expect("fits")
        };
        let follow = |image: &ClusterImage| watch.follow(image, &ImageDelta::between(&empty, image));
        follow(&set(ConfigResource::ClusterDefault, "log.retention.ms", "5"));
        assert!(!settings.has_changed().expect("the sender lives"));

        follow(&set(
            ConfigResource::Group("g".to_owned()),
            GROUP_CONFIGS[0].name,
            "6000",
        ));
        assert!(settings.has_changed().expect("the sender lives"));
        let own = ConsumerOverrides {
            heartbeat_interval_ms: Some(6000),
            ..ConsumerOverrides::default()
        };
        let overrides = Arc::clone(&settings.borrow_and_update().consumer_overrides);
        assert_eq!(*overrides, BTreeMap::from([(GroupId::from("g"), own)]));
    }
}
