//! What is set for one consumer group: how often its members are to be heard of, how long they may be silent.

use super::{
    def::{ConfigError, Synonym},
    group_table::{HEARTBEAT, SESSION, group_def},
    resolve::{NodeDefaults, node_values},
};
use crate::{ClusterImage, ConfigResource};

/// The times that are set for one group of the KIP-848 protocol, in milliseconds; `None`: as on its
/// coordinator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupTimes {
    /// `consumer.session.timeout.ms`.
    pub session_timeout_ms: Option<i32>,
    /// `consumer.heartbeat.interval.ms`.
    pub heartbeat_interval_ms: Option<i32>,
}

impl GroupTimes {
    /// What is set for the group at this image.
    pub fn set_for(image: &ClusterImage, group: &str) -> Self {
        let resource = ConfigResource::Group(group.to_owned());
        let value = |key| {
            let def = group_def(key).expect("a key that is looked up is in the table");
            // A value that this version refuses (written by another one) counts for nothing.
            let value = image
                .config(&resource, key)
                .filter(|value| def.check(value).is_ok());
            value.and_then(|value| value.trim().parse().ok())
        };
        Self {
            session_timeout_ms: value(SESSION),
            heartbeat_interval_ms: value(HEARTBEAT),
        }
    }

    /// Whether what is set for a group lies within a node's limits, and fits together with each other and
    /// with what holds on the node where it is not set.
    pub fn check(self, image: &ClusterImage, node: &NodeDefaults) -> Result<(), ConfigError> {
        within(SESSION, self.session_timeout_ms, node)?;
        within(HEARTBEAT, self.heartbeat_interval_ms, node)?;
        if self == Self::default() {
            return Ok(());
        }
        let session = self.session_timeout_ms.or_else(|| of_node(SESSION, image, node));
        let heartbeat = self
            .heartbeat_interval_ms
            .or_else(|| of_node(HEARTBEAT, image, node));
        match session.zip(heartbeat) {
            Some((session, heartbeat)) if session <= heartbeat => Err(ConfigError::Conflict(format!(
                "{SESSION} ({session}) must be greater than {HEARTBEAT} ({heartbeat})"
            ))),
            _ => Ok(()),
        }
    }
}

/// What holds on a node for a group that has no value of its own.
fn of_node(key: &str, image: &ClusterImage, node: &NodeDefaults) -> Option<i32> {
    let def = group_def(key)?;
    let mut set = def
        .synonyms
        .iter()
        .flat_map(|&synonym: &Synonym| node_values(image, synonym, node));
    set.find_map(|found| found.value.trim().parse().ok())
        .or_else(|| def.default?.parse().ok())
}

/// Whether a value lies between the node's `group.consumer.min.…` and `group.consumer.max.…`.
fn within(key: &str, value: Option<i32>, node: &NodeDefaults) -> Result<(), ConfigError> {
    let (Some(value), Some(kind)) = (value, key.strip_prefix("consumer.")) else {
        return Ok(());
    };
    let limit = |which: &str| -> Option<(String, i32)> {
        let name = format!("group.consumer.{which}.{kind}");
        let limit = node.value_or_default(&name)?.trim().parse().ok()?;
        Some((name, limit))
    };
    let below = limit("min").filter(|&(_, least)| value < least);
    let above = limit("max").filter(|&(_, most)| value > most);
    let why = match (below, above) {
        (Some((name, least)), _) => format!("must be at least {name}, which is {least}"),
        (None, Some((name, most))) => format!("must be at most {name}, which is {most}"),
        (None, None) => return Ok(()),
    };
    Err(ConfigError::InvalidValue {
        key: key.to_owned(),
        value: value.to_string(),
        why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records;

    fn image(set: &[(&str, &str)]) -> ClusterImage {
        let group = ConfigResource::Group("g".to_owned());
        let records: Vec<_> = set
            .iter()
            .map(|(key, value)| records::config_record(&group, key, Some(value)))
            .collect();
        ClusterImage::default().speculate(&records).expect("fits")
    }

    fn node(values: &[(&str, &str)]) -> NodeDefaults {
        let values = values
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()));
        NodeDefaults::new(values.collect())
    }

    #[test]
    fn only_what_is_set_for_the_group_and_fits_counts() {
        let image = image(&[(SESSION, "50000"), (HEARTBEAT, "often")]);
        let expected = GroupTimes {
            session_timeout_ms: Some(50_000),
            heartbeat_interval_ms: None,
        };
        assert_eq!(GroupTimes::set_for(&image, "g"), expected);
        assert_eq!(GroupTimes::set_for(&image, "other"), GroupTimes::default());
    }

    #[test]
    fn values_lie_within_the_node_s_limits_and_fit_together() {
        let check = |set: &[(&str, &str)], node: &NodeDefaults| {
            let image = image(set);
            let checked = GroupTimes::set_for(&image, "g").check(&image, node);
            checked.map_err(|error| error.to_string())
        };
        let kafka = NodeDefaults::default();
        assert_eq!(check(&[], &kafka), Ok(()));
        assert_eq!(check(&[(SESSION, "60000"), (HEARTBEAT, "15000")], &kafka), Ok(()));
        for (key, value, why) in [
            (
                SESSION,
                "44999",
                "at least group.consumer.min.session.timeout.ms, which is 45000",
            ),
            (
                SESSION,
                "60001",
                "at most group.consumer.max.session.timeout.ms, which is 60000",
            ),
            (
                HEARTBEAT,
                "4999",
                "at least group.consumer.min.heartbeat.interval.ms, which is 5000",
            ),
            (
                HEARTBEAT,
                "15001",
                "at most group.consumer.max.heartbeat.interval.ms, which is 15000",
            ),
        ] {
            let error = check(&[(key, value)], &kafka).expect_err("refused");
            assert!(error.contains(why), "{error}");
        }
        let quick = node(&[
            ("group.consumer.min.session.timeout.ms", "100"),
            ("group.consumer.session.timeout.ms", "5000"),
        ]);
        assert_eq!(
            check(&[], &quick),
            Ok(()),
            "what nobody has set is nobody's fault"
        );
        let error = check(&[(HEARTBEAT, "5000")], &quick).expect_err("as long as the session");
        assert!(error.contains("must be greater than"), "{error}");
        assert_eq!(check(&[(SESSION, "5001")], &quick), Ok(()));
    }
}
