"""The bus contract, run on the in-memory bus and on a real Kafka: what the shell relies on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import pytest
from kafka import KafkaConsumer
from kafka import TopicPartition as KafkaTopicPartition

from regate.config.errors import ConfigError, FatalError, FencedError, RegateError, RetryableError
from regate.daemon.bus.kafka import KafkaBus
from regate.daemon.bus.memory import MemoryBus
from regate.daemon.bus.placement import murmur2_partition
from regate.daemon.bus.port import (
    Bus,
    Changes,
    GroupConsumer,
    GroupMetadata,
    OutRecord,
    Producer,
    Record,
    TopicPartition,
    TopicSpec,
)

WAIT_SECONDS = 20.0


class World:
    """A bus with short words for what the tests do; everything opened is closed at the end."""

    def __init__(self, bus: Bus, prefix: str) -> None:
        self.bus, self.prefix = bus, prefix
        self.admin = bus.admin()
        self.reader = bus.reader()
        self._closing: list[Callable[[], None]] = [self.reader.close, self.admin.close]

    def topic(self, name: str = "in", partitions: int = 1, **config: str) -> str:
        full = f"{self.prefix}.{name}"
        self.admin.create([TopicSpec(full, partitions, 1, tuple((k.replace("_", "."), v) for k, v in config.items()))])
        return full

    def write(self, *records: OutRecord) -> None:
        writer = self.bus.writer()
        for record in records:
            writer.send(record)
        writer.close(10.0)

    def fill(self, topic: str, count: int, partition: int = 0, start: int = 0) -> None:
        self.write(*(OutRecord(topic, b"%d" % n, partition=partition) for n in range(start, start + count)))

    def consumer(self, *topics: str, instance: str | None = None, group: str = "g") -> GroupConsumer:
        consumer = self.bus.consumer(
            f"{self.prefix}.{group}", None if instance is None else f"{self.prefix}.{instance}"
        )
        self._closing.insert(0, lambda: consumer.close(2.0))
        consumer.subscribe(topics)
        return consumer

    def producer(self, name: str = "p") -> Producer:
        producer = self.bus.producer(f"{self.prefix}.{name}")
        self._closing.insert(0, lambda: producer.close(2.0))
        return producer

    def settled(self, tp: TopicPartition) -> None:
        """Wait until no transaction is open there: Kafka writes a commit's markers after it has said ok."""
        deadline = time.monotonic() + WAIT_SECONDS
        while self.reader.end(tp) < high_watermark(self.bus, tp):
            assert time.monotonic() < deadline, "a transaction stays open"

    def all(self, topic: str, partition: int = 0) -> list[Record]:
        tp = TopicPartition(topic, partition)
        self.settled(tp)
        return self.reader.read(tp, self.reader.beginning(tp), self.reader.end(tp))

    def values(self, topic: str, partition: int = 0) -> list[bytes | None]:
        return [record.value for record in self.all(topic, partition)]

    def close(self) -> None:
        for close in self._closing:
            close()


@pytest.fixture
def world(bus: Bus, topic_prefix: str):
    made = World(bus, topic_prefix)
    yield made
    made.close()


def until(done: Callable[[], bool], *consumers: GroupConsumer) -> dict[TopicPartition, list[Record]]:
    """Poll in turn, taking no changes, until the condition holds; return what was polled."""
    deadline = time.monotonic() + WAIT_SECONDS
    found: dict[TopicPartition, list[Record]] = {}
    while not done():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        for consumer in consumers:
            for tp, records in consumer.poll(0.05, 1000).items():
                found.setdefault(tp, []).extend(records)
    return found


def assigned(*consumers: GroupConsumer, partitions: int) -> list[Changes]:
    """Poll until these members together hold so many partitions in one generation; take and merge the changes."""
    until(
        lambda: (
            sum(len(c.assignment()) for c in consumers) == partitions
            and all(c.assignment() for c in consumers)
            and len({c.metadata().generation for c in consumers}) == 1
        ),
        *consumers,
    )
    return [consumer.take_changes() for consumer in consumers]


def polled(consumer: GroupConsumer, count: int) -> list[Record]:
    """Poll until so many records came."""
    deadline = time.monotonic() + WAIT_SECONDS
    found: list[Record] = []
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} records came"
        for records in consumer.poll(0.2, 1000).values():
            found += records
        consumer.take_changes()
    return found


def transact(
    producer: Producer,
    records: Iterable[OutRecord],
    offsets: dict[TopicPartition, int] | None = None,
    group: GroupMetadata | None = None,
) -> None:
    producer.begin()
    for record in records:
        producer.send(record)
    producer.commit(offsets or {}, group)


def high_watermark(bus: Bus, tp: TopicPartition) -> int:
    """Return the end of the log with everything that is open: the port does not show it."""
    if isinstance(bus, MemoryBus):
        return bus._cluster.log(tp).end
    assert isinstance(bus, KafkaBus)
    client = KafkaConsumer(bootstrap_servers=bus._cluster.bootstrap_servers, isolation_level="read_uncommitted")
    try:
        return client.end_offsets([KafkaTopicPartition(*tp)])[KafkaTopicPartition(*tp)]
    finally:
        client.close()


# -- records and placement ---------------------------------------------------------------------------------------


def test_key_value_headers_and_timestamp_come_back(world: World) -> None:
    topic = world.topic()
    sent = [
        OutRecord(topic, b"v", b"k", (("a", b"1"), ("b", b"")), timestamp_ms=1_700_000_000_123),
        OutRecord(topic, None, b"gone"),
        OutRecord(topic, b"", None),
    ]
    world.write(*sent)
    first, second, third = world.all(topic)
    assert first == Record(topic, 0, 0, 1_700_000_000_123, b"k", b"v", (("a", b"1"), ("b", b"")))
    assert (second.key, second.value, second.headers) == (b"gone", None, ())
    assert (third.key, third.value, third.offset) == (None, b"", 2)
    assert abs(second.timestamp_ms - time.time() * 1000) < 60_000


def test_keys_are_placed_by_murmur2_and_an_explicit_partition_wins(world: World) -> None:
    topic = world.topic(partitions=5)
    keys = [f"tenant/model-{n}".encode() for n in range(20)]
    world.write(*(OutRecord(topic, b"by-key", key) for key in keys))
    world.write(*(OutRecord(topic, b"explicit", key, partition=3) for key in keys))
    transact(world.producer(), (OutRecord(topic, b"by-key", key) for key in keys))
    for partition in range(5):
        records = world.all(topic, partition)
        by_key = [record.key for record in records if record.value == b"by-key"]
        assert by_key == [key for key in keys if murmur2_partition(key, 5) == partition] * 2
        assert sum(record.value == b"explicit" for record in records) == (20 if partition == 3 else 0)


def test_a_missing_topic_is_refused_and_not_created(world: World) -> None:
    missing = f"{world.prefix}.missing"
    producer = world.producer()
    producer.begin()
    writer = world.bus.writer()
    consumer = world.bus.consumer(f"{world.prefix}.g")
    for refused in (
        lambda: producer.send(OutRecord(missing, b"1")),
        lambda: writer.send(OutRecord(missing, b"1")),
        lambda: consumer.subscribe([missing]),
        lambda: world.reader.end(TopicPartition(missing, 0)),
        lambda: world.admin.config(missing),
    ):
        with pytest.raises(ConfigError, match="missing"):
            refused()
    consumer.close(2.0)
    writer.close(2.0)
    assert missing not in world.admin.topics()
    assert world.admin.partitions(missing) == 0


def test_topics_are_created_once_and_keep_their_settings(world: World) -> None:
    topic = world.topic(partitions=2, cleanup_policy="compact")
    assert world.admin.create([TopicSpec(topic, 7), TopicSpec(f"{topic}2", 1)]) == [f"{topic}2"]
    assert world.admin.partitions(topic) == 2
    assert world.admin.config(topic)["cleanup.policy"] == "compact"
    assert world.admin.config(f"{topic}2")["cleanup.policy"] == "delete"
    world.admin.delete([f"{topic}2"])
    assert f"{topic}2" not in world.admin.topics()


# -- groups ------------------------------------------------------------------------------------------------------


def test_poll_gives_records_in_order_after_the_partition_was_handed_over(world: World) -> None:
    topic = world.topic(partitions=2)
    for partition in range(2):
        world.fill(topic, 50, partition)
    consumer = world.consumer(topic)
    early = until(lambda: len(consumer.assignment()) == 2, consumer)
    for _ in range(5):
        early |= consumer.poll(0.1, 1000)
    assert early == {}, "records came before their partition was handed over"
    assert consumer.take_changes().assigned == {TopicPartition(topic, 0), TopicPartition(topic, 1)}
    records = polled(consumer, 100)
    for partition in range(2):
        assert [r.value for r in records if r.partition == partition] == [b"%d" % n for n in range(50)]
    assert consumer.position(TopicPartition(topic, 0)) == 50


def test_seek_pause_and_resume(world: World) -> None:
    topic = world.topic(partitions=2)
    world.fill(topic, 10, 0)
    world.fill(topic, 10, 1)
    consumer = world.consumer(topic)
    assigned(consumer, partitions=2)
    zero, one = TopicPartition(topic, 0), TopicPartition(topic, 1)
    consumer.pause([one])
    consumer.seek(zero, 7)
    assert [(r.partition, r.offset) for r in polled(consumer, 3)] == [(0, 7), (0, 8), (0, 9)]
    assert consumer.poll(0.3, 100) == {}
    consumer.resume([one])
    consumer.seek(one, 9)
    assert [(r.partition, r.offset) for r in polled(consumer, 1)] == [(1, 9)]
    with pytest.raises(RetryableError):
        consumer.seek(TopicPartition(f"{topic}x", 0), 0)


def test_poll_keeps_to_max_records(world: World) -> None:
    topic = world.topic()
    world.fill(topic, 30)
    consumer = world.consumer(topic)
    assigned(consumer, partitions=1)
    sizes = []
    while sum(sizes) < 30:
        sizes.append(sum(map(len, consumer.poll(1.0, 7).values())))
    assert max(sizes) <= 7


def test_two_members_share_by_range_and_keep_corresponding_partitions_together(world: World) -> None:
    cells, slim = world.topic("cells", partitions=5), world.topic("slim", partitions=5)
    first = world.consumer(cells, slim, instance="a")
    assigned(first, partitions=10)
    second = world.consumer(cells, slim, instance="b")
    before, after = assigned(first, second, partitions=10)
    assert before.revoked == {TopicPartition(t, p) for t in (cells, slim) for p in range(5)}
    assert first.assignment() == before.assigned == {TopicPartition(t, p) for t in (cells, slim) for p in (0, 1, 2)}
    assert second.assignment() == after.assigned == {TopicPartition(t, p) for t in (cells, slim) for p in (3, 4)}
    assert first.metadata().member_id != second.metadata().member_id


def test_a_dynamic_member_that_leaves_is_taken_over_at_once_from_the_committed_offsets(world: World) -> None:
    topic, out = world.topic(partitions=2), world.topic("out")
    world.fill(topic, 10, 0)
    world.fill(topic, 10, 1)
    first, second = world.consumer(topic), world.consumer(topic)
    assigned(first, second, partitions=2)
    leaver, stayer = sorted((first, second), key=lambda c: min(c.assignment()))
    (tp,) = leaver.assignment()
    polled(leaver, 10)
    transact(world.producer(), [OutRecord(out, b"x")], {tp: 4}, leaver.metadata())
    generation = leaver.metadata().generation
    leaver.close(5.0)
    (changes,) = assigned(stayer, partitions=2)
    assert tp in changes.assigned
    assert stayer.metadata().generation > generation
    assert stayer.committed([tp, TopicPartition(topic, 1)]) == {tp: 4}
    stayer.pause([other for other in stayer.assignment() if other != tp])
    assert [r.offset for r in polled(stayer, 6)] == [4, 5, 6, 7, 8, 9]


def test_a_static_member_comes_back_to_its_partitions_without_a_new_generation(world: World) -> None:
    topic = world.topic(partitions=2)
    first, second = world.consumer(topic, instance="a"), world.consumer(topic, instance="b")
    assigned(first, second, partitions=2)
    held, generation = first.assignment(), first.metadata().generation
    first.close(5.0)
    again = world.consumer(topic, instance="a")
    until(lambda: bool(again.assignment()), again)
    assert again.assignment() == held
    assert again.metadata().generation == generation
    second.poll(0.2, 10)
    assert not second.take_changes()


def test_a_static_member_that_stays_away_is_taken_over_after_its_session(world: World) -> None:
    topic = world.topic(partitions=2)
    first, second = world.consumer(topic, instance="a"), world.consumer(topic, instance="b")
    assigned(first, second, partitions=2)
    first.close(5.0)
    started = time.monotonic()
    assigned(second, partitions=2)
    assert 2.0 < time.monotonic() - started < WAIT_SECONDS


def test_two_with_one_identity_the_older_is_fenced(world: World) -> None:
    topic, out = world.topic(), world.topic("out")
    first = world.consumer(topic, instance="a")
    assigned(first, partitions=1)
    old = first.metadata()
    second = world.consumer(topic, instance="a")
    until(lambda: bool(second.assignment()), second)
    with pytest.raises(FencedError):
        transact(world.producer(), [OutRecord(out, b"zombie")], {TopicPartition(topic, 0): 0}, old)
    with pytest.raises(FencedError):
        until(lambda: False, first)
    world.producer()  # aborts what the fenced commit left open
    assert world.values(out) == []


def test_growth_of_an_input_reaches_the_group(world: World) -> None:
    topic = world.topic()
    consumer = world.consumer(topic)
    assigned(consumer, partitions=1)
    world.admin.add_partitions(topic, 3)
    assert world.admin.partitions(topic) == 3
    (changes,) = assigned(consumer, partitions=3)
    assert changes.assigned == {TopicPartition(topic, p) for p in range(3)}
    world.fill(topic, 1, partition=2)
    assert [r.partition for r in polled(consumer, 1)] == [2]
    with pytest.raises(ConfigError):
        world.admin.add_partitions(topic, 2)


# -- transactions ------------------------------------------------------------------------------------------------


def test_outputs_and_offsets_commit_together(world: World) -> None:
    topic, out, journal = world.topic(), world.topic("out", 2), world.topic("journal")
    world.fill(topic, 3)
    consumer = world.consumer(topic)
    assigned(consumer, partitions=1)
    polled(consumer, 3)
    tp = TopicPartition(topic, 0)
    assert consumer.committed([tp]) == {}
    producer = world.producer()
    records = [OutRecord(out, b"0", partition=0), OutRecord(out, b"1", partition=1), OutRecord(journal, b"j")]
    transact(producer, records, {tp: 3}, consumer.metadata())
    transact(producer, [], {tp: 3}, consumer.metadata())  # a tick: no output, offsets all the same
    assert (world.values(out, 0), world.values(out, 1), world.values(journal)) == ([b"0"], [b"1"], [b"j"])
    assert consumer.committed([tp]) == {tp: 3}


def test_abort_leaves_nothing(world: World) -> None:
    topic, out = world.topic(), world.topic("out")
    consumer = world.consumer(topic)
    assigned(consumer, partitions=1)
    producer = world.producer()
    producer.begin()
    producer.send(OutRecord(out, b"aborted"))
    producer.abort()
    transact(producer, [OutRecord(out, b"kept")], {TopicPartition(topic, 0): 0}, consumer.metadata())
    assert world.values(out) == [b"kept"]


def test_an_open_transaction_hides_what_was_committed_behind_it(world: World) -> None:
    out = world.topic("out")
    tp = TopicPartition(out, 0)
    world.fill(out, 1)
    slow, quick = world.producer("slow"), world.producer("quick")
    slow.begin()
    slow.send(OutRecord(out, b"slow"))
    started = time.monotonic()
    while high_watermark(world.bus, tp) < 2:
        assert time.monotonic() - started < WAIT_SECONDS
    transact(quick, [OutRecord(out, b"quick")])
    assert world.reader.end(tp) == 1
    assert [r.value for r in world.reader.read(tp, 0, 1)] == [b"0"]
    with pytest.raises(RetryableError):
        world.reader.read(tp, 0, 3, timeout_seconds=0.5)
    slow.commit({}, None)
    assert world.values(out) == [b"0", b"slow", b"quick"]


def test_an_open_transaction_of_another_partition_hides_nothing(world: World) -> None:
    out = world.topic("out", 2)
    slow, quick = world.producer("slow"), world.producer("quick")
    slow.begin()
    slow.send(OutRecord(out, b"slow", partition=0))
    transact(quick, [OutRecord(out, b"quick", partition=1)])
    assert world.values(out, 1) == [b"quick"]


def test_a_new_producer_fences_the_old_one_and_aborts_its_transaction(world: World) -> None:
    out = world.topic("out")
    old = world.producer("same")
    old.begin()
    old.send(OutRecord(out, b"zombie"))
    new = world.producer("same")
    with pytest.raises(FencedError):
        old.commit({}, None)
    with pytest.raises(RetryableError):
        old.begin()
    transact(new, [OutRecord(out, b"rightful")])
    assert world.values(out) == [b"rightful"]


def test_a_commit_under_an_old_generation_is_fenced(world: World) -> None:
    topic, out = world.topic(partitions=2), world.topic("out")
    first = world.consumer(topic)
    assigned(first, partitions=2)
    old = first.metadata()
    second = world.consumer(topic)
    assigned(first, second, partitions=2)
    assert first.metadata().generation > old.generation
    with pytest.raises(FencedError):
        transact(world.producer(), [OutRecord(out, b"zombie")], {TopicPartition(topic, 1): 5}, old)
    assert first.committed([TopicPartition(topic, 1)]) == {}
    transact(world.producer(), [OutRecord(out, b"new")], {TopicPartition(topic, 0): 0}, first.metadata())
    assert world.values(out) == [b"new"]


def test_a_group_without_offsets_is_a_mistake(world: World) -> None:
    producer = world.producer()
    producer.begin()
    with pytest.raises(FatalError, match="offsets"):
        producer.commit({}, GroupMetadata("g", 1, "m", None))


def test_a_commit_whose_send_was_refused_is_not_reported_ok(world: World) -> None:
    small, out = world.topic("small", max_message_bytes="2000"), world.topic("out")
    producer = world.producer()
    producer.begin()
    producer.send(OutRecord(out, b"journal"))
    producer.send(OutRecord(small, b"x" * 5000))
    with pytest.raises(FatalError):
        producer.commit({}, None)
    with pytest.raises(RetryableError):
        producer.begin()
    transact(world.producer(), [OutRecord(out, b"again")])
    assert world.values(out) == [b"again"]
    writer = world.bus.writer()
    writer.send(OutRecord(small, b"x" * 5000))
    with pytest.raises(FatalError):
        writer.flush(10.0)
    writer.close(2.0)


# -- reading ranges ----------------------------------------------------------------------------------------------


def test_ranges_with_markers_and_aborted_records_are_read_to_their_end(world: World) -> None:
    out = world.topic("out")
    tp = TopicPartition(out, 0)
    producer = world.producer()
    for value in (b"a", b"b"):
        transact(producer, [OutRecord(out, value)])
    producer.begin()
    producer.send(OutRecord(out, b"aborted"))
    producer.abort()
    transact(producer, [OutRecord(out, b"c")])
    world.settled(tp)
    end = world.reader.end(tp)
    records = world.reader.read(tp, 0, end)
    assert [r.value for r in records] == [b"a", b"b", b"c"]
    offsets = [r.offset for r in records]
    assert end > offsets[-1] + 1, "the marker takes an offset"
    assert world.reader.read(tp, end - 1, end) == []  # only a marker
    assert world.reader.read(tp, end, end) == []
    for start in range(end):
        for stop in range(start, end + 1):
            expected = [r for r in records if start <= r.offset < stop]
            assert world.reader.read(tp, start, stop) == expected, (start, stop)
    assert world.reader.ends([tp]) == {tp: end}


def test_a_range_that_is_not_there_yet_is_unknown_not_empty(world: World) -> None:
    topic = world.topic()
    world.fill(topic, 2)
    with pytest.raises(RetryableError):
        world.reader.read(TopicPartition(topic, 0), 0, 3, timeout_seconds=0.5)
    with pytest.raises(RetryableError):
        world.reader.read(TopicPartition(topic, 0), 5, 6, timeout_seconds=0.5)


def test_many_records_are_read_whole(world: World) -> None:
    topic = world.topic()
    world.write(*(OutRecord(topic, b"%06d" % n + b"x" * 500, partition=0) for n in range(20_000)))
    tp = TopicPartition(topic, 0)
    records = world.reader.read(tp, 5, 19_995)
    assert [r.offset for r in records] == list(range(5, 19_995))
    assert all(r.value is not None and int(r.value[:6]) == r.offset for r in records)


def test_at_time_finds_the_first_record_not_older(world: World) -> None:
    topic = world.topic()
    base = 1_700_000_000_000
    world.write(*(OutRecord(topic, b"%d" % n, partition=0, timestamp_ms=base + n * 1000) for n in range(5)))
    tp = TopicPartition(topic, 0)
    times = (base - 1, base, base + 1, base + 4000, base + 4001)
    assert [world.reader.at_time(tp, t) for t in times] == [0, 0, 1, 4, 5]


def test_what_retention_drops_is_gone_and_a_consumer_goes_on_behind_it(world: World) -> None:
    topic = world.topic()
    tp = TopicPartition(topic, 0)
    world.fill(topic, 10)
    consumer = world.consumer(topic)
    assert [record.offset for record in polled(consumer, 10)] == list(range(10))
    consumer.pause([tp])
    world.fill(topic, 10, start=10)
    world.admin.forget(tp, 15)
    assert world.reader.beginning(tp) == 15
    with pytest.raises(FatalError):
        world.reader.read(tp, 3, 20)
    consumer.seek(tp, 10)
    consumer.resume([tp])
    assert [record.offset for record in polled(consumer, 5)] == list(range(15, 20))


def test_a_compacted_topic_read_to_its_end_gives_the_latest_of_each_key(world: World) -> None:
    topic = world.topic(cleanup_policy="compact", segment_bytes="1048576", min_cleanable_dirty_ratio="0.01")
    producer = world.producer()
    for value in range(3):
        transact(producer, [OutRecord(topic, b"%d" % value, b"k%d" % k, partition=0) for k in range(4)])
    transact(producer, [OutRecord(topic, None, b"k3", partition=0)])

    def state() -> dict[bytes | None, bytes | None]:
        return {r.key: r.value for r in world.all(topic) if r.key is not None and r.key.startswith(b"k")}

    latest = {b"k0": b"2", b"k1": b"2", b"k2": b"2", b"k3": None}
    assert state() == latest
    if isinstance(world.bus, MemoryBus):
        before = len(world.all(topic))
        world.bus.compact(topic)
        assert len(world.all(topic)) == 4 < before
        assert state() == latest
        world.bus.compact(topic, drop_tombstones=True)
        assert state() == {key: value for key, value in latest.items() if value is not None}
    transact(producer, [OutRecord(topic, b"new", b"k0", partition=0)])
    assert state()[b"k0"] == b"new"


def test_every_error_of_the_bus_is_in_the_tree(world: World) -> None:
    topic = world.topic()
    producer = world.producer()
    with pytest.raises(RegateError):
        producer.commit({}, None)
    with pytest.raises(RegateError):
        producer.send(OutRecord(topic, b"1"))
    other = world.producer("other")
    other.begin()
    with pytest.raises(RegateError):
        other.begin()
    with pytest.raises(RegateError):
        world.write(OutRecord(topic, b"1", partition=9))
