"""Admin calls through librdkafka's admin client."""

import warnings

from confluent_kafka import KafkaError, KafkaException, OFFSET_END, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
)

from cluster import BOOTSTRAP, PATIENCE, ClusterTest, admin, ask, carry_out, create_topic, delete_topic


class AdminTest(ClusterTest):
    def fails_with(self, code, request):
        with self.assertRaises(KafkaException) as raised:
            ask(request)
        self.assertEqual(raised.exception.args[0].code(), code)

    def test_topics(self):
        client = admin()
        name = create_topic(partitions=3)
        description = client.describe_topics(TopicCollection([name]))[name].result(PATIENCE)
        self.assertEqual(len(description.partitions), 3)
        for partition in description.partitions:
            self.assertEqual(len(partition.replicas), 3)
            self.assertIsNotNone(partition.leader)
        self.assertEqual(len({p.leader.id for p in description.partitions}), 3, "leaders are spread")
        self.fails_with(
            KafkaError.TOPIC_ALREADY_EXISTS, lambda: client.create_topics([NewTopic(name, 1, 1)])[name]
        )
        too_many = f"{name}-rf"
        self.fails_with(
            KafkaError.INVALID_REPLICATION_FACTOR, lambda: client.create_topics([NewTopic(too_many, 1, 4)])[too_many]
        )
        carry_out(lambda: client.create_partitions([NewPartitions(name, 5)])[name], KafkaError.INVALID_PARTITIONS)
        self.wait_until(
            lambda: len(client.list_topics(name, PATIENCE).topics[name].partitions) == 5,
            "the new partitions are not seen",
        )
        delete_topic(name)
        self.wait_until(lambda: name not in client.list_topics(timeout=PATIENCE).topics, "the topic is still there")
        self.fails_with(KafkaError.UNKNOWN_TOPIC_OR_PART, lambda: client.delete_topics([name])[name])

    def test_the_cluster(self):
        client = admin()
        cluster = client.describe_cluster().result(PATIENCE)
        self.assertEqual(sorted(node.id for node in cluster.nodes), [1, 2, 3])
        ports = sorted(int(address.rsplit(":", 1)[1]) for address in BOOTSTRAP.split(","))
        self.assertEqual(sorted(node.port for node in cluster.nodes), ports)
        self.assertTrue(cluster.cluster_id)
        self.assertIn(cluster.controller.id, [1, 2, 3])

    def test_topic_configs(self):
        client = admin()
        name = create_topic(config={"retention.ms": "5000"})

        def describe():
            resource = ConfigResource(ConfigResource.Type.TOPIC, name)
            [future] = client.describe_configs([resource]).values()
            return future.result(PATIENCE)

        def alter(key, value, operation):
            entry = ConfigEntry(key, value, incremental_operation=operation)
            resource = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=[entry])
            [future] = client.incremental_alter_configs([resource]).values()
            return future

        self.assertEqual(describe()["retention.ms"].value, "5000")
        self.assertEqual(describe()["retention.ms"].source, ConfigSource.DYNAMIC_TOPIC_CONFIG.value)
        ask(lambda: alter("retention.ms", "6000", AlterConfigOpType.SET))
        self.wait_until(lambda: describe()["retention.ms"].value == "6000", "the change is not seen")
        ask(lambda: alter("retention.ms", None, AlterConfigOpType.DELETE))
        self.wait_until(lambda: describe()["retention.ms"].value == "604800000", "not the default again")
        self.fails_with(KafkaError.INVALID_CONFIG, lambda: alter("retention.ms", "soon", AlterConfigOpType.SET))

    def test_replacing_a_topics_configs(self):
        """AlterConfigs: what is not named loses its value."""
        client = admin()
        name = create_topic(config={"retention.ms": "5000", "segment.ms": "60000"})
        resource = ConfigResource(ConfigResource.Type.TOPIC, name, set_config={"retention.ms": "6000"})

        def replace():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                [future] = client.alter_configs([resource]).values()
            return future

        ask(replace)

        def replaced():
            [future] = client.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, name)]).values()
            configs = future.result(PATIENCE)
            return (configs["retention.ms"].value, configs["segment.ms"].value) == ("6000", "604800000")

        self.wait_until(replaced, "the change is not seen")

    def test_broker_configs(self):
        for broker in ["1", "2", "3"]:
            resource = ConfigResource(ConfigResource.Type.BROKER, broker)
            [future] = admin().describe_configs([resource]).values()
            self.assertIn("log.retention.ms", future.result(PATIENCE))

    def test_offsets_and_records(self):
        client = admin()
        name = create_topic()
        partition = TopicPartition(name, 0)
        [found] = client.list_offsets({partition: OffsetSpec.latest()}).values()
        self.assertEqual(found.result(PATIENCE).offset, 0)
        [deleted] = client.delete_records([TopicPartition(name, 0, OFFSET_END)]).values()
        self.assertEqual(deleted.result(PATIENCE).low_watermark, 0)
        [error] = ask(lambda: client.elect_leaders(_preferred(), [partition])).values()
        self.assertEqual(error.code(), KafkaError.ELECTION_NOT_NEEDED)


def _preferred():
    from confluent_kafka import ElectionType

    return ElectionType.PREFERRED
