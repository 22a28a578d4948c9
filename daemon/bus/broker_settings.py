"""What the embedded broker is told: one node, loopback, no replication, small internal topics."""

from __future__ import annotations

from pathlib import Path

LOGGING = Path(__file__).with_name("broker_log4j2.properties")
# The line of its log that says that it serves.
STARTED = "Kafka Server started"
# 285 MB and 3 to 5 s to start. The last two silence warnings of Java 25 about Kafka's own libraries.
JVM_OPTIONS = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
)
# A topic says its own limit; the broker's only keeps a single request from eating the heap.
MAX_MESSAGE_BYTES = 8_388_608


def properties(data_dir: Path, port: int, controller_port: int) -> str:
    """Return the text of ``server.properties``."""
    settings: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": data_dir / "logs",
        "auto.create.topics.enable": "false",  # a misspelt topic is an error, not a new topic
        "num.partitions": 1,
        "default.replication.factor": 1,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 5,  # 50 each by default: seconds of start-up and hundreds of files
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 5,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        "group.initial.rebalance.delay.ms": 0,  # 3 s by default, paid at every start
        "group.min.session.timeout.ms": 1000,  # tests of take-over wait for this
        "offsets.retention.minutes": 43_200,  # a daemon that was off for a month still knows where it was
        "message.max.bytes": MAX_MESSAGE_BYTES,
        "replica.fetch.max.bytes": MAX_MESSAGE_BYTES,
        "broker.session.timeout.ms": 2000,  # after SIGKILL a restart waits for the old session: 13.7 s by default
        "broker.heartbeat.interval.ms": 500,
        # A dead producer's transaction hides later records until it is timed out; 10 s by default on top of that.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
        "log.cleaner.dedupe.buffer.size": 16_777_216,  # 128 MB by default, a quarter of the heap
        "num.network.threads": 2,
        "num.io.threads": 4,
        "background.threads": 2,
    }
    return "".join(f"{name}={value}\n" for name, value in settings.items())
