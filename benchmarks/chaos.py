"""The promises of the daemon under fire, on the embedded broker.

    python benchmarks/chaos.py --kills 50 [--seed 1] [--json FILE]        SIGKILL at random points (R27)
    python benchmarks/chaos.py --partitions 24 [--rate 1000] [--seconds 60]   step times in one process

Kills: one daemon is killed and started again at once, another reads the same telemetry undisturbed. Printed are
every difference between the journals' replay and the bus, and between the two daemons' findings and gates.
Exits 1 when a promise is broken.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.conftest import TEST_TIMEOUTS
from tests.integration.chaos import Ground, Stream, drifting, essence, hunt, outline, recovered, replay

from regate.daemon.bus.broker import Broker
from regate.daemon.bus.kafka import KafkaBus

STEP_LIMIT_MS = 500


@contextmanager
def ground(telemetry: int = 3, labels: int = 2) -> Iterator[Ground]:
    with tempfile.TemporaryDirectory(prefix="regate-chaos-") as name:
        folder = Path(name)
        broker = Broker(folder / "kafka")
        broker.start()
        bus = KafkaBus(broker.bootstrap, timeouts=TEST_TIMEOUTS)
        try:
            yield Ground(bus, broker.bootstrap, folder, "chaos", telemetry, labels)
        finally:
            bus.close()
            broker.stop()


def past(rows: int, seed: int, per_second: float = 50.0) -> Stream:
    """A stream that ends about now."""
    start = time.time_ns() // 1000 - int((rows / per_second + 80) * 1e6)
    return drifting(rows, seed=seed, start_us=start, per_second=per_second)


def kills(count: int, seed: int) -> dict[str, Any]:
    with ground() as field:
        calm, wild = field.world("calm"), field.world("wild")
        stream = past(max(6_000, 400 * count), seed)
        began = time.monotonic()
        with calm.daemon() as quiet, wild.daemon() as hunted:
            back = hunt(
                hunted, wild.shards, count, seed, lambda first, last: field.send(stream, 2.0, part=(first, last))
            )
            for world, daemon in ((calm, quiet), (wild, hunted)):
                world.drained([daemon], 120)
                if daemon.end() != 0:
                    raise SystemExit(f"not a clean exit: {daemon.said()}")
        seconds = time.monotonic() - began
        replays = {world.settings.instance: replay(world) for world in (calm, wild)}
        for name, done in replays.items():
            for difference in done.differences[:10]:
                print(f"{name}: {difference}", file=sys.stderr)
        found = {
            "kills": count,
            "seed": seed,
            "seconds": round(seconds, 1),
            "events": len(stream.messages),
            "start_to_work_p50_s": round(statistics.median(back), 2),
            "start_to_work_max_s": round(max(back), 2),
            "steps_replayed": replays["wild"].steps,
            "outputs_compared": replays["wild"].outputs,
            "outputs_lost_doubled_or_different": len(replays["wild"].differences) + len(replays["calm"].differences),
            "findings": len(essence(wild.findings())),
            "findings_equal_to_undisturbed": essence(wild.findings()) == essence(calm.findings()),
            "findings_equal_to_cores_alone": essence(wild.findings()) == essence(stream.reference()),
            "gate_events": len(wild.decisions()),
            "gate_story_equal_to_undisturbed": outline(wild.decisions()) == outline(calm.decisions()),
        }
        checks = [value for name, value in found.items() if "_equal_" in name]
        found["ok"] = all(checks) and not found["outputs_lost_doubled_or_different"] and found["findings"] > 1
        return found


def partitions(count: int, rate: float, seconds: float, seed: int) -> dict[str, Any]:
    with ground(count, max(1, count // 4)) as field:
        world = field.world("wide", partitions=6, shell={}, schedule={})
        stream = past(int(rate * seconds / 2), seed, rate)
        with world.daemon() as daemon:
            recovered(daemon, world.shards, 120)
            field.send(stream, seconds)
            world.drained([daemon], 120)
            if daemon.end() != 0:
                raise SystemExit(f"not a clean exit: {daemon.said()}")
            said = {line["role"]: line for line in daemon.events("stopped")}
        found: dict[str, Any] = {"partitions": count, "records_per_second": rate, "seconds": seconds}
        for role, line in sorted(said.items()):
            for name in ("steps", "step_ms_p50", "step_ms_p95", "step_ms_max", "longest_gap_ms"):
                found[f"{role}_{name}"] = line[name]
        found["ok"] = all(line["step_ms_p95"] <= STEP_LIMIT_MS for line in said.values())
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int)
    parser.add_argument("--partitions", type=int)
    parser.add_argument("--rate", type=float, default=1000.0, help="telemetry and label records a second")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    results = []
    if asked.kills:
        results.append(kills(asked.kills, asked.seed))
    if asked.partitions:
        results.append(partitions(asked.partitions, asked.rate, asked.seconds, asked.seed))
    if not results:
        parser.error("say --kills N or --partitions N")
    for result in results:
        for name, value in result.items():
            print(f"{name:36} {value}")
        print()
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=2))
    sys.exit(0 if all(result["ok"] for result in results) else 1)


if __name__ == "__main__":
    main()
