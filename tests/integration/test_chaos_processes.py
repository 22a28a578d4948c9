"""Several daemons, daemons that are told to leave, and a broker that dies under one: nothing lost, nothing doubled."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.chaos import Daemon, Ground, Stream, World, drifting, essence, recovered, replay

from regate.daemon.bus.broker import Broker
from regate.daemon.bus.kafka import KafkaBus

pytestmark = pytest.mark.kafka
SESSION = {"session_seconds": 6.0}  # the least that a broker's defaults allow


def start_us() -> int:
    return time.time_ns() // 1000 - 200_000_000


def held(daemon: Daemon) -> dict[str, set[str]]:
    """The shards of each role after its last assignment."""
    return {line["role"]: set(line["shards"]) for line in daemon.events("assignment")}


def until(done: Callable[[], bool], seconds: float, said: Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, said()
        time.sleep(0.05)  # a line in the log of another process cannot be awaited


def catches_sigterm(pid: int) -> bool:
    """Whether the process got as far as its own code; before that no program can answer a signal."""
    (mask,) = (line.split()[1] for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "SigCgt" in line)
    return bool(int(mask, 16) >> (signal.SIGTERM - 1) & 1)


def shared(a: Daemon, b: Daemon) -> None:
    """Wait until each of two daemons has one of the two decide shards."""

    def split() -> bool:
        return sorted((held(a).get("decide", set()), held(b).get("decide", set())), key=sorted) == [{"0"}, {"1"}]

    until(split, 60, lambda: f"{held(a)} {held(b)}")


def begun(world: World, stream: Stream, daemons: list[Daemon]) -> None:
    """Send the first fifth and wait for it: a partition counts as empty until its first record was seen."""
    world.ground.send(stream, 1.0, part=(0.0, 0.2))
    world.drained(daemons, roles=("observe", "decide"))


def test_r20_two_processes_share_six_partitions_and_one_takes_over_from_a_killed_one(
    kafka_bus: KafkaBus, broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    ground = Ground(kafka_bus, broker.bootstrap, tmp_path, topic_prefix, telemetry=6, labels=3)
    world = ground.world("shared", bus=SESSION)
    stream = drifting(4_000, seed=3, start_us=start_us())
    with world.daemon("a") as a, world.daemon("b") as b:
        shared(a, b)
        begun(world, stream, [a, b])
        ground.send(stream, 4.0, part=(0.2, 0.6))
        decides = next(one for one in (a, b) if "1" in held(one)["decide"])  # murmur2("default/loan") mod 2 is 1
        other = b if decides is a else a
        assert len(held(decides)["observe"]) in {4, 5}
        decides.kill()
        ground.send(stream, 2.0, part=(0.6, 1.0))
        world.drained([other], 90)
        assert len(held(other)["observe"]) == 9
        taken = [line for line in other.events("recovered") if (line["role"], line["shard"]) == ("decide", "1")]
        assert taken[-1]["step"] > 0
        assert other.end() == 0
    assert essence(world.findings()) == essence(stream.reference())
    assert replay(world).differences == []


def test_r21_a_process_that_was_frozen_past_its_session_wakes_up_fenced_and_publishes_nothing_twice(
    kafka_bus: KafkaBus, broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    ground = Ground(kafka_bus, broker.bootstrap, tmp_path, topic_prefix, telemetry=6, labels=3)
    world = ground.world("frozen", bus=SESSION)
    stream = drifting(4_000, seed=9, start_us=start_us())
    with world.daemon("a") as a, world.daemon("b") as b:
        shared(a, b)
        begun(world, stream, [a, b])
        ground.send(stream, 2.0, part=(0.2, 0.5))
        decides = next(one for one in (a, b) if "1" in held(one)["decide"])
        other = b if decides is a else a
        os.kill(decides.pid, signal.SIGSTOP)
        ground.send(stream, 1.0, part=(0.5, 0.8))
        until(lambda: held(other)["decide"] == {"0", "1"}, 60, other.said)
        os.kill(decides.pid, signal.SIGCONT)
        ground.send(stream, 1.0, part=(0.8, 1.0))
        world.drained([a, b], 90)
        assert a.end() == 0
        assert b.end() == 0
    assert essence(world.findings()) == essence(stream.reference())
    assert replay(world).differences == []


def test_r22_of_two_daemons_with_one_identity_the_loser_exits_76_and_the_other_goes_on(
    kafka_bus: KafkaBus, broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    ground = Ground(kafka_bus, broker.bootstrap, tmp_path, topic_prefix)
    world = ground.world("twin")
    stream = drifting(3_000, seed=4, start_us=start_us())
    first, second = world.daemon(), world.daemon()
    second.log = second.log.with_suffix(".second.log")
    with first:
        recovered(first, world.shards)
        ground.send(stream, 1.0, part=(0.0, 0.5))
        with second:
            assert first.wait(40) == 76, first.said()
            ground.send(stream, 0.0, part=(0.5, 1.0))
            world.drained([second], 60)
            assert second.end() == 0
    assert essence(world.findings()) == essence(stream.reference())
    assert replay(world).differences == []


def test_r26_sigterm_anywhere_is_a_clean_exit_within_15_seconds(
    kafka_bus: KafkaBus, broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    ground = Ground(kafka_bus, broker.bootstrap, tmp_path, topic_prefix)
    world = ground.world("told")
    stream = drifting(2_000, seed=5, start_us=start_us())
    draw = random.Random(5)
    daemon = world.daemon()
    for part, moment in enumerate(("starting", "recovering", "working")):
        shares = (part / 3, (part + 1) / 3)
        feeder = threading.Thread(target=ground.send, args=(stream, 1.0), kwargs={"part": shares})
        feeder.start()
        with daemon:
            if moment == "starting":
                until(lambda: catches_sigterm(daemon.pid), 10, daemon.said)
                time.sleep(draw.uniform(0.0, 1.0))
            elif moment == "recovering":
                recovered(daemon, 1)
            else:
                recovered(daemon, world.shards)
                time.sleep(draw.uniform(0.0, 1.5))
            began = time.monotonic()
            assert daemon.end(15.0) == 0, (moment, daemon.said())
            assert time.monotonic() - began < 15
        feeder.join()
    with daemon:
        world.drained([daemon])
        assert daemon.end(15.0) == 0
    assert essence(world.findings()) == essence(stream.reference())
    assert replay(world).differences == []


def test_r16_a_broker_frozen_killed_and_restarted_delays_and_changes_nothing(
    own_broker: Callable[[], Broker], topic_prefix: str, tmp_path: Path
) -> None:
    broker = own_broker()
    bus = KafkaBus(broker.bootstrap)
    ground = Ground(bus, broker.bootstrap, tmp_path, topic_prefix)
    world = ground.world("patient")
    stream = drifting(4_000, seed=6, start_us=start_us())
    with world.daemon() as daemon:
        recovered(daemon, world.shards)
        ground.send(stream, 2.0, part=(0.0, 0.4))
        broker.pause()
        time.sleep(4.0)  # frozen: connections stay open, nothing answers
        broker.resume()
        ground.send(stream, 2.0, part=(0.4, 0.7))
        broker.kill()
        broker.start()
        back = time.monotonic()
        ground.send(stream, 1.0, part=(0.7, 1.0))
        world.drained([daemon], 60)
        assert time.monotonic() - back < 45
        # Told to leave while the broker is frozen: it must not wait for an answer.
        broker.pause()
        began = time.monotonic()
        assert daemon.end(15.5) == 0, daemon.said()
        assert time.monotonic() - began < 15
        broker.resume()
    assert essence(world.findings()) == essence(stream.reference())
    assert replay(world).differences == []
    bus.close()
