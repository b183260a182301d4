"""Apache Kafka's own command line tools, by the names of their shell scripts."""

import glob
import os
import subprocess
import tempfile
from pathlib import Path

import running

_MAIN = {
    "kafka-broker-api-versions": "org.apache.kafka.tools.BrokerApiVersionsCommand",
    "kafka-cluster": "org.apache.kafka.tools.ClusterTool",
    "kafka-configs": "kafka.admin.ConfigCommand",
    "kafka-console-consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "kafka-console-producer": "org.apache.kafka.tools.ConsoleProducer",
    "kafka-consumer-groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "kafka-delete-records": "org.apache.kafka.tools.DeleteRecordsCommand",
    "kafka-dump-log": "org.apache.kafka.tools.DumpLogSegments",
    "kafka-get-offsets": "org.apache.kafka.tools.GetOffsetShell",
    "kafka-leader-election": "org.apache.kafka.tools.LeaderElectionCommand",
    "kafka-log-dirs": "org.apache.kafka.tools.LogDirsCommand",
    "kafka-producer-perf-test": "org.apache.kafka.tools.ProducerPerformance",
    "kafka-server-start": "kafka.Kafka",
    "kafka-storage": "kafka.tools.StorageTool",
    "kafka-topics": "org.apache.kafka.tools.TopicCommand",
    "kafka-verifiable-consumer": "org.apache.kafka.tools.VerifiableConsumer",
    "kafka-verifiable-producer": "org.apache.kafka.tools.VerifiableProducer",
}
# A JVM that starts fast: these tools live for a second.
_SHORT_LIVED = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m"]
# A tool that runs longer than this hangs.
PATIENCE = 240.0


def command(tool, *arguments, jvm=_SHORT_LIVED):
    """The command line that starts a tool."""
    jars = sorted(glob.glob(os.path.join(os.environ["KAFKA_JARS"], "*.jar")))
    assert jars, "KAFKA_JARS names no folder of jars: start the suite with tests/clients/run.sh"
    logging = ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
    return ["java", *jvm, *logging, "-cp", ":".join(jars), _MAIN[tool], *arguments]


def run(tool, *arguments, text=None):
    """Runs a tool to its end, whatever that is."""
    return subprocess.run(
        command(tool, *arguments), input=text, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def output(tool, *arguments, text=None):
    """Runs a tool that must succeed; its standard output."""
    done = run(tool, *arguments, text=text)
    assert done.returncode == 0, f"{tool} {arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Running(running.Running):
    """A tool that runs until it is ended; `lines` is what it has printed, `log` what it complained of."""

    def __init__(self, tool, *arguments, config=None, each=None):
        """`config` are settings of the client, for a tool that takes them as --command-config; `each` is called with
        every line, which is not kept then."""
        self._folder = tempfile.TemporaryDirectory()
        if config:
            path = Path(self._folder.name) / "client.properties"
            path.write_text("".join(f"{key}={value}\n" for key, value in config.items()))
            arguments += ("--command-config", str(path))
        super().__init__(command(tool, *arguments), each)

    def _reap(self):
        super()._reap()
        self._folder.cleanup()
