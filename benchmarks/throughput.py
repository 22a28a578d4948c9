"""Throughput, side by side on the same topic in one run.

    python benchmarks/throughput.py [--events 1000000] [--arrow-events 4000000] [--repeat 3] [--json FILE]

Rows: bare kafka-python poll; kafka-python + json + 8 River ADWIN; regate's watch role (observe and decide, with
journal, snapshots, transactions, profile, 8 numeric features and their charts) on JSON and on Arrow batches.
Each runs in a process of its own, in turn, on an embedded broker; the median of the repeats is printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FEATURES = 8
PARTITIONS = 6
SPREAD_SECONDS = 600  # event times end now and begin so long ago: nothing is historical
ARROW_ROWS = 4000
ROWS = ("poll", "adwin", "json", "arrow")
NAMES = {
    "poll": "kafka-python poll, nothing else",
    "adwin": "kafka-python + json + 8 River ADWIN",
    "json": "regate watch, JSON",
    "arrow": "regate watch, Arrow batches",
}


class Measured(NamedTuple):
    events: int
    seconds: float
    cpu_seconds: float
    step_p95_ms: float = 0.0  # while it reads a backlog


def table(rows: int, seed: int) -> pa.Table:
    draw = np.random.default_rng(seed)
    return pa.table({f"f{i}": draw.normal(size=rows).round(6) for i in range(FEATURES)})


def settings(bootstrap: str, prefix: str, telemetry: str, folder: Path):
    from regate.config.settings import Settings

    return Settings.model_validate(
        {
            "bus": {
                "bootstrap_servers": bootstrap,
                "prefix": prefix,
                "telemetry_topic": telemetry,
                "labels_topic": f"{telemetry}.labels",
                "partitions": 2,
            },
            "artefacts": str(folder / "artefacts"),
            "instance": prefix,
        }
    )


def fill(bootstrap: str, folder: Path, form: str, events: int) -> None:
    """Create the topic of one form and send the events."""
    from regate.daemon.bus.kafka import KafkaBus
    from regate.daemon.bus.topics import Topics
    from regate.daemon.files import read_table
    from regate.daemon.wire.sending import Sending, send

    path = folder / f"{form}.parquet"
    pq.write_table(table(events, 1), path)
    rows = read_table(path)
    rows.rename("bench")
    bus = KafkaBus(bootstrap)
    admin = bus.admin()
    admin.create(Topics(settings(bootstrap, f"fill-{form}", form, folder).bus).specs(PARTITIONS, 1))
    admin.close()
    writer = bus.writer()
    how = Sending(telemetry=form, form="arrow" if form == "arrow" else "json", key="none", batch_rows=ARROW_ROWS)
    now = time.time_ns() // 1000
    times = now - SPREAD_SECONDS * 1_000_000 + np.arange(events) * (SPREAD_SECONDS * 1_000_000 // events)
    send(rows, writer, how, times_us=times, run="b", now_us=lambda: now, wait=time.sleep)
    writer.close(60.0)
    bus.close()


def baseline(bootstrap: str, events: int, *, adwin: bool) -> Measured:
    """Poll the topic to its end with kafka-python alone."""
    from kafka import KafkaConsumer

    consumer = KafkaConsumer(
        "json",
        bootstrap_servers=bootstrap,
        group_id=f"bare-{time.time_ns()}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    detectors = []
    if adwin:
        from river.drift import ADWIN

        detectors = [ADWIN() for _ in range(FEATURES)]
    seen, started, busy = 0, 0.0, 0.0
    while seen < events:
        polled = consumer.poll(timeout_ms=200, max_records=50_000)
        if polled and not started:
            started, busy = time.perf_counter(), time.process_time()
        for records in polled.values():
            seen += len(records)
            if adwin:
                for record in records:
                    inputs = json.loads(record.value)["inputs"]
                    for index, detector in enumerate(detectors):
                        detector.update(inputs[f"f{index}"])
    took, worked = time.perf_counter() - started, time.process_time() - busy
    consumer.close()
    return Measured(seen, took, worked)


def regate(bootstrap: str, folder: Path, form: str, events: int) -> Measured:
    """Run the watch role from the beginning of the topic until everything is committed."""
    from regate.daemon import log
    from regate.daemon.apply import apply_documents
    from regate.daemon.bus.kafka import KafkaBus
    from regate.daemon.bus.port import TopicPartition
    from regate.daemon.bus.topics import Topics
    from regate.daemon.files import read_table
    from regate.daemon.process import Process
    from regate.detectors.build import build_profile

    log.configure("warning")
    reference = folder / "reference.parquet"
    if not reference.exists():
        pq.write_table(table(20_000, 2), reference)
    rows = read_table(reference)
    rows.rename("bench")
    profile = build_profile(rows.config, rows.key, rows.whole, events_per_second=1000.0, calibrate_seconds=0.0)
    chosen = settings(bootstrap, f"run-{time.time_ns()}", form, folder)
    bus, topics = KafkaBus(bootstrap), Topics(chosen.bus)
    admin = bus.admin()
    admin.create(topics.specs(PARTITIONS, 1))
    admin.close()
    apply_documents(bus, topics, [rows.config], [profile])
    reader = bus.reader()
    inputs = [TopicPartition(form, number) for number in range(PARTITIONS)]
    total = sum(reader.ends(inputs).values())
    process = Process(bus, topics, chosen, {"watch"})
    observe, decide = (part.runner for part in process.parts)
    process.start()
    while not observe.counters.recoveries:
        time.sleep(0.005)
    started, busy = time.perf_counter(), time.process_time()
    while observe.counters.records < total:
        time.sleep(0.01)
    # Decide is done when it has read all that observe wrote.
    cells = [TopicPartition(topics.name("cells"), number) for number in range(2)]
    wanted = reader.ends(cells)
    while any(decide.position(partition) < end - 1 for partition, end in wanted.items()):  # a marker may stand last
        time.sleep(0.02)
    took, worked = time.perf_counter() - started, time.process_time() - busy
    worst = sorted(observe.counters.step_seconds)[int(len(observe.counters.step_seconds) * 0.95)]
    process.stop()
    process.join()
    return Measured(events, took, worked, worst * 1000)


def child(row: str, bootstrap: str, folder: Path, events: int) -> None:
    if row in {"poll", "adwin"}:
        done = baseline(bootstrap, events, adwin=row == "adwin")
    else:
        done = regate(bootstrap, folder, row, events)
    # Not ru_maxrss: after a fork it begins with the parent's.
    status = Path("/proc/self/status").read_text()
    peak_kb = int(status.split("VmHWM:")[1].split()[0])
    print(
        json.dumps(
            {
                **done._asdict(),
                "events_per_second": done.events / done.seconds,
                "cpu_us_per_event": done.cpu_seconds / done.events * 1e6,
                "peak_rss_mb": peak_kb / 1024,
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--arrow-events", type=int, default=4_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", choices=ROWS)
    parser.add_argument("--bootstrap", default="")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    counts = dict.fromkeys(ROWS, given.events) | {"arrow": given.arrow_events}
    if given.child:
        child(given.child, given.bootstrap, given.folder, counts[given.child])
        return
    from regate.daemon.bus.broker import Broker

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        broker = Broker(folder / "kafka")
        bootstrap = broker.start()
        try:
            for form in ("json", "arrow"):
                fill(bootstrap, folder, form, counts[form])
            found: dict[str, list[dict[str, float]]] = {row: [] for row in ROWS}
            for _ in range(given.repeat):
                for row in ROWS:
                    command = [sys.executable, __file__, "--child", row, "--bootstrap", bootstrap, "--folder", name]
                    command += ["--events", str(given.events), "--arrow-events", str(given.arrow_events)]
                    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
                    found[row].append(json.loads(done.stdout.splitlines()[-1]))
        finally:
            broker.stop()
    report = {row: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for row, runs in found.items()}
    print(f"{'row':<40} {'events/s':>12} {'CPU us/event':>13} {'peak MB':>8} {'step p95 ms':>12}")
    for row in ROWS:
        told = report[row]
        print(
            f"{NAMES[row]:<40} {told['events_per_second']:>12,.0f} {told['cpu_us_per_event']:>13.2f} "
            f"{told['peak_rss_mb']:>8.0f} {told['step_p95_ms'] or '':>12.4}"
        )
    speed = {row: report[row]["events_per_second"] for row in ROWS}
    print(f"regate JSON / ADWIN row: {speed['json'] / speed['adwin']:.2f} (bound 1.15)")
    print(f"regate JSON / bare poll: {speed['json'] / speed['poll']:.2f} (bound .7)")
    print(f"regate Arrow: {speed['arrow']:,.0f} events/s (bound 500,000)")
    if given.json:
        given.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
