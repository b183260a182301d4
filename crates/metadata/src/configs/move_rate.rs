//! How fast a broker may copy replicas between its log directories.

use super::resolve::{NodeDefaults, node_setting};
use crate::ClusterImage;

/// `replica.alter.log.dirs.io.max.bytes.per.second`: bytes a second over all replicas that move on the node, at
/// this image.
pub fn move_bytes_per_second(image: &ClusterImage, node: &NodeDefaults) -> u64 {
    node_setting(image, node, "replica.alter.log.dirs.io.max.bytes.per.second")
}

#[cfg(test)]
mod tests {
    use protocol::BrokerId;

    use super::*;
    use crate::{ConfigResource, records};

    const KEY: &str = "replica.alter.log.dirs.io.max.bytes.per.second";

    #[test]
    fn moves_are_not_bounded_until_somebody_says_so() {
        let node = NodeDefaults::of_broker(BrokerId(1), [].into());
        let mut image = ClusterImage::default();
        assert_eq!(move_bytes_per_second(&image, &node), i64::MAX as u64);
        let changes = [
            (ConfigResource::ClusterDefault, "1000"),
            (ConfigResource::Broker(BrokerId(2)), "3000"),
            (ConfigResource::Broker(BrokerId(1)), "0"),
        ];
        let rates = changes.map(|(resource, value)| {
            let live = records::config_record(&resource, KEY, Some(value));
            image = image.speculate(&[live]).expect("fits");
            move_bytes_per_second(&image, &node)
        });
        assert_eq!(rates, [1000, 1000, 0]);
    }
}
