//! What a client may do, as Kafka's bit sets (KIP-430): bit n is the operation with code n of
//! `org.apache.kafka.common.acl.AclOperation`. Nothing is authorized yet, so everybody may do everything.

/// The client did not ask.
const NOT_REQUESTED: i32 = i32::MIN;

/// Everything that can be done to a topic: read, write, create, delete, alter, describe,
/// describe configs, alter configs.
pub(super) const ALL_OF_TOPIC: i32 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;

/// Everything that can be done to the cluster: create, alter, describe, cluster action, describe
/// configs, alter configs, idempotent write.
pub(super) const ALL_OF_CLUSTER: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;

/// Everything that can be done to a group: read, delete, describe, describe configs, alter configs.
const ALL_OF_GROUP: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

/// `all` where the client asked, else that it did not.
pub(super) const fn when(requested: bool, all: i32) -> i32 {
    if requested { all } else { NOT_REQUESTED }
}

/// What may be done with a group: nothing is said where it could not be described, or was not asked for.
pub(super) const fn of_group(requested: bool, error_code: i16) -> i32 {
    when(requested && error_code == 0, ALL_OF_GROUP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sets_are_what_a_kafka_broker_sends() {
        assert_eq!((ALL_OF_TOPIC, ALL_OF_CLUSTER), (0x0df8, 0x1fa0));
    }
}
