"""The rules of exactly-once with kafka-python, each as behaviour on a real broker that is killed and frozen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from regate.config.errors import ConfigError, FencedError, RegateError, RetryableError
from regate.daemon.bus.bounded import bounded
from regate.daemon.bus.broker import Broker
from regate.daemon.bus.kafka import KafkaBus
from regate.daemon.bus.kafka_client import Timeouts
from regate.daemon.bus.kafka_consumer import KafkaGroupConsumer
from regate.daemon.bus.kafka_producer import KafkaTransactions
from regate.daemon.bus.port import GroupMetadata, OutRecord, TopicPartition, TopicSpec

pytestmark = pytest.mark.kafka
WAIT_SECONDS = 20.0


def hold(consumer: KafkaGroupConsumer, partitions: int, poll_seconds: float = 0.1) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while len(consumer.assignment()) != partitions or not consumer.take_changes().assigned:
        assert time.monotonic() < deadline, f"holds {len(consumer.assignment())} of {partitions} partitions"
        consumer.poll(poll_seconds, 100)


def settled_values(bus: KafkaBus, topic: str) -> list[bytes | None]:
    """Return the committed values once a fresh producer has swept older transactions away."""
    writer, reader, tp = bus.writer(), bus.reader(), TopicPartition(topic, 0)
    writer.send(OutRecord(topic, b"end", partition=0))
    writer.close(10.0)
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        found = [record.value for record in reader.read(tp, 0, reader.end(tp))]
        if found and found[-1] == b"end":
            reader.close()
            return found[:-1]
        assert time.monotonic() < deadline


def transact(
    producer: KafkaTransactions,
    record: OutRecord,
    offsets: dict[TopicPartition, int] | None = None,
    group: GroupMetadata | None = None,
) -> None:
    """Send into the open transaction and commit."""
    producer.send(record)
    producer.commit(offsets or {}, group)


def go_on(bus: KafkaBus, consumer: KafkaGroupConsumer, record: OutRecord, offsets: dict[TopicPartition, int]) -> None:
    """Commit one transaction as the shell does after a fault: any error means a new producer and another try."""
    deadline = time.monotonic() + 30
    while True:
        consumer.poll(0.2, 10)
        consumer.take_changes()
        producer = None
        try:
            producer = bus.producer("p")
            producer.begin()
            producer.send(record)
            producer.commit(offsets, consumer.metadata())
        except RegateError:
            assert time.monotonic() < deadline
        else:
            return
        finally:
            if producer is not None:
                producer.close(1.0)


def test_phantom_commit_a_transaction_that_timed_out_is_not_reported_committed(
    kafka_bus: KafkaBus, topic_prefix: str
) -> None:
    admin = kafka_bus.admin()
    admin.create([TopicSpec(f"{topic_prefix}.out", 1)])
    admin.close()
    quick = KafkaBus(kafka_bus._cluster.bootstrap_servers, timeouts=Timeouts(transaction=1.0))
    producer = quick.producer(f"{topic_prefix}.p")
    producer.begin()
    producer.send(OutRecord(f"{topic_prefix}.out", b"phantom"))
    end = time.monotonic() + WAIT_SECONDS
    reader, tp = quick.reader(), TopicPartition(f"{topic_prefix}.out", 0)
    while reader.end(tp) == 0:  # the broker aborts by itself: its marker moves the stable end
        assert time.monotonic() < end
    with pytest.raises(FencedError):
        producer.commit({}, None)
    producer.close(1.0)
    again = quick.producer(f"{topic_prefix}.p")  # fenced is not finished: initialise and go on
    again.begin()
    again.send(OutRecord(f"{topic_prefix}.out", b"real"))
    again.commit({}, None)
    again.close(1.0)
    assert settled_values(quick, f"{topic_prefix}.out") == [b"real"]
    reader.close()
    quick.close()


def test_joins_that_outlive_the_poll_still_bring_their_partitions(kafka_bus: KafkaBus, topic_prefix: str) -> None:
    """kafka-python forgets such a join when new metadata caused it; short polls hit that within a few tries."""
    admin = kafka_bus.admin()
    for turn in range(8):
        topic = f"{topic_prefix}.in{turn}"
        admin.create([TopicSpec(topic, 1)])
        consumer = kafka_bus.consumer(f"{topic_prefix}.g{turn}")
        consumer.subscribe([topic])
        hold(consumer, 1, poll_seconds=0.001)
        admin.add_partitions(topic, 4)
        hold(consumer, 4, poll_seconds=0.001)
        consumer.close(2.0)
    admin.close()


def test_a_late_zombie_is_fenced_and_the_rightful_owner_goes_on(kafka_bus: KafkaBus, topic_prefix: str) -> None:
    admin = kafka_bus.admin()
    out = f"{topic_prefix}.out"
    admin.create([TopicSpec(out, 1)])
    admin.close()
    zombie = kafka_bus.producer(f"{topic_prefix}.p")
    zombie.begin()
    zombie.send(OutRecord(out, b"zombie-1"))
    owner = kafka_bus.producer(f"{topic_prefix}.p")
    with pytest.raises(FencedError):
        transact(zombie, OutRecord(out, b"zombie-2"))
    done = []
    for value in (b"1", b"2"):
        try:
            owner.begin()
            owner.send(OutRecord(out, value))
            owner.commit({}, None)
        except FencedError:  # a zombie's produce may bump the epoch under the owner: initialise, do it again
            owner = kafka_bus.producer(f"{topic_prefix}.p")
            owner.begin()
            owner.send(OutRecord(out, value))
            owner.commit({}, None)
        done.append(value)
    owner.close(2.0)
    zombie.close(2.0)
    assert settled_values(kafka_bus, out) == done


@pytest.fixture
def lonely(own_broker: Callable[[], Broker]) -> Iterator[tuple[Broker, KafkaBus]]:
    broker = own_broker()
    timeouts = Timeouts(request=3.0, block=4.0, session=6.0, heartbeat=0.5, delivery=6.0, transaction=4.0, commit=3.0)
    bus = KafkaBus(broker.bootstrap, timeouts=timeouts)
    yield broker, bus
    broker.resume()
    bus.close()


def test_r17_a_frozen_broker_ends_in_errors_not_in_hangs_and_one_effect(lonely: tuple[Broker, KafkaBus]) -> None:
    broker, bus = lonely
    admin = bus.admin()
    admin.create([TopicSpec("in", 1), TopicSpec("out", 1)])
    consumer, reader, producer = bus.consumer("g", "a"), bus.reader(), bus.producer("p")
    consumer.subscribe(["in"])
    hold(consumer, 1)
    tp = TopicPartition("in", 0)
    producer.begin()
    producer.send(OutRecord("out", b"before"))
    broker.pause()
    started = time.monotonic()
    with pytest.raises(RetryableError):
        producer.commit({tp: 0}, consumer.metadata())
    assert time.monotonic() - started < 6
    with pytest.raises(RetryableError):
        producer.begin()
    assert consumer.poll(0.2, 10) == {}, "no broker looks like no data: the probe tells them apart"
    started = time.monotonic()
    with pytest.raises(RetryableError):
        reader.ends([tp])
    producer.close(1.0)
    assert time.monotonic() - started < 10
    broker.resume()
    # Outcome unknown: a new producer settles it, and the committed offset tells which it was.
    bus.producer("p").close(1.0)
    if consumer.committed([tp]) == {}:
        go_on(bus, consumer, OutRecord("out", b"before"), {tp: 0})
    assert consumer.committed([tp]) == {tp: 0}
    assert settled_values(bus, "out") == [b"before"]
    for part in (reader, admin):
        part.close()
    consumer.close(2.0)


def test_r16_a_killed_broker_comes_back_and_everybody_goes_on(lonely: tuple[Broker, KafkaBus]) -> None:
    broker, bus = lonely
    admin = bus.admin()
    admin.create([TopicSpec("in", 2), TopicSpec("out", 1)])
    consumer, reader, producer = bus.consumer("g", "a"), bus.reader(), bus.producer("p")
    consumer.subscribe(["in"])
    hold(consumer, 2)
    tps = [TopicPartition("in", 0), TopicPartition("in", 1)]
    producer.begin()
    producer.send(OutRecord("out", b"1"))
    producer.commit(dict.fromkeys(tps, 0), consumer.metadata())
    producer.begin()
    broker.kill()
    with pytest.raises(RetryableError):
        transact(producer, OutRecord("out", b"torn"), dict.fromkeys(tps, 1), consumer.metadata())
    producer.close(1.0)
    broker.start()
    started = time.monotonic()
    go_on(bus, consumer, OutRecord("out", b"2"), dict.fromkeys(tps, 2))
    assert time.monotonic() - started < 30
    assert consumer.committed(tps) == dict.fromkeys(tps, 2)
    assert settled_values(bus, "out") == [b"1", b"2"]
    consumer.close(2.0)
    reader.close()
    admin.close()


def test_nobody_there_is_said_with_the_next_command() -> None:
    bus = KafkaBus("127.0.0.1:9", timeouts=Timeouts(block=1.0))
    with pytest.raises(RetryableError, match="regate kafka status"):
        bus.admin()
    with pytest.raises(ConfigError, match="sasl_password"):
        KafkaBus("127.0.0.1:9", security={"sasl_password": "secret"})


def test_a_call_that_hangs_becomes_an_error_at_its_deadline() -> None:
    release = threading.Event()
    with pytest.raises(RetryableError, match="did not end"):
        bounded(release.wait, 0.05, "a call")
    release.set()
    assert bounded(lambda: 7, 5.0, "a call") == 7
    with pytest.raises(KeyError):
        bounded(lambda: {}["x"], 5.0, "a call")
