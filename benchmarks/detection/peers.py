"""The peers: which library, which of its parameters is tuned, on which inputs it can say anything at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.detection.streams import Inputs, Null

Home = Literal["regate", "peers", "peers-alibi"]
EVERYWHERE: tuple[Null, ...] = ("iid", "ar5", "heavy", "seasonal")
SOME: tuple[Null, ...] = ("iid", "ar5")


@dataclass(frozen=True, slots=True)
class Peer:
    """One row. ``loose`` and ``strict`` bound what is tuned; ``default`` is the library's own setting of it."""

    name: str
    home: Home  # whose interpreter runs it; River is a dependency of regate itself
    library: str
    call: str
    inputs: tuple[Inputs, ...]
    mode: Literal["alarms", "scores"]
    parameter: str
    loose: float = 0.0
    strict: float = 0.0
    default: float | None = None
    nulls: tuple[Null, ...] = EVERYWHERE
    every: int = 1  # rows a score
    rest: int = 0  # scores after an alarm in which its window refills
    lead: int = 0  # rows before the change that its state still holds
    post: int = 10_000  # rows after the change it is given
    cost: float = 3.0  # microseconds an event, roughly
    real: bool = False  # also watched on real streams
    note: str = ""


def _river(call: str, parameter: str, loose: float, strict: float, default: float, cost: float, **more: object) -> Peer:
    inputs: tuple[Inputs, ...] = ("rate",)
    if call in {"ADWIN", "PageHinkley"}:
        inputs = ("numeric", "rate", "joint")
    return Peer(
        f"River {call}", "regate", "river_peers", call, inputs, "alarms", parameter, loose, strict, default, cost=cost,
        **more,  # type: ignore[arg-type]
    )  # fmt: skip


def _frouros(
    call: str, parameter: str, loose: float, strict: float, default: float, cost: float, *inputs: Inputs
) -> Peer:
    return Peer(
        f"Frouros {call}", "peers-alibi", "frouros_peers", call, inputs, "alarms", parameter, loose, strict, default,
        nulls=("iid",), cost=cost,
    )  # fmt: skip


def _window(name: str, call: str, inputs: tuple[Inputs, ...], parameter: str, default: float, **more: object) -> Peer:
    return Peer(
        name, "peers", "windows_peers", call, inputs, "scores", parameter, default=default, every=500,
        **more,  # type: ignore[arg-type]
    )  # fmt: skip


def _alibi(call: str, inputs: tuple[Inputs, ...], cost: float, memory: int) -> Peer:
    return Peer(
        f"Alibi Detect online {call}", "peers-alibi", "alibi_peers", call, inputs, "scores",
        "level of the statistic", nulls=("iid",), rest=memory, lead=2 * memory, post=1500, cost=cost,
        note="its own bootstrap for a run time of 10,000 takes hours; reference cut to 500 rows (CVM, FET 2,000)",
    )  # fmt: skip


BOTH: tuple[Inputs, ...] = ("numeric", "rate")
PEERS = (
    _river("ADWIN", "delta", 0.9, 1e-9, 0.002, 0.3, real=True),
    _river("PageHinkley", "threshold", 3.0, 3000.0, 50.0, 0.5, real=True),
    _river("DDM", "drift_threshold", 1.2, 8.0, 3.0, 0.5, real=True),
    _river("EDDM", "beta", 0.99, 0.3, 0.9, 0.3, real=True),
    _river("FHDDM", "confidence_level", 0.3, 1e-12, 1e-6, 0.6, note="fed correct = 1: it looks for a fall of the ones"),
    _river("HDDMA", "drift_confidence", 0.5, 1e-12, 0.001, 2.0, real=True),
    _river("HDDMW", "drift_confidence", 0.5, 1e-12, 0.001, 3.0, real=True),
    _river(
        "Dummy", "t_0", 100.0, 100_000.0, 300.0, 0.3,
        note="DummyDriftDetector, random trigger: looks at nothing",
    ),
    Peer(
        "River KSWIN", "regate", "river_peers", "KSWIN", ("numeric",), "scores", "alpha", default=2.301,
        nulls=("iid",), rest=70, lead=200, post=1500, cost=150.0,
    ),
    _frouros("ADWIN", "delta", 0.9, 1e-9, 0.002, 16.0, *BOTH),
    _frouros("CUSUM", "lambda_", 3.0, 3000.0, 50.0, 2.8, *BOTH),
    _frouros("PageHinkley", "lambda_", 3.0, 3000.0, 50.0, 2.0, *BOTH),
    _frouros("GeometricMovingAverage", "lambda_", 0.02, 5.0, 1.0, 2.0, *BOTH),
    _frouros("DDM", "drift_level", 1.2, 8.0, 3.0, 3.5, "rate"),
    _frouros("ECDDWT", "average_run_length", 100.0, 1000.0, 400.0, 6.5, "rate"),
    _frouros("EDDM", "beta", 0.99, 0.3, 0.9, 1.0, "rate"),
    _frouros("HDDMA", "alpha_d", 0.5, 1e-12, 0.001, 7.0, "rate"),
    _frouros("HDDMW", "alpha_d", 0.5, 1e-12, 0.001, 7.0, "rate"),
    _frouros("RDDM", "drift_level", 1.2, 8.0, 2.258, 4.5, "rate"),
    _frouros("STEPD", "alpha_d", 0.05, 1e-9, 0.003, 25.0, "rate"),
    Peer(
        "Frouros IncrementalKSTest", "peers-alibi", "frouros_peers", "IncrementalKS", ("numeric",), "scores",
        "statistic", nulls=("iid",), rest=100, lead=200, post=1500, cost=110.0,
    ),
    Peer(
        "Frouros MMDStreaming", "peers-alibi", "frouros_peers", "MMD", ("numeric", "joint"), "scores", "distance",
        nulls=("iid",), rest=50, lead=100, post=1500, cost=120.0,
    ),
    _alibi("MMD", ("numeric", "joint"), 2000.0, 50),
    _alibi("LSDD", ("numeric", "joint"), 1200.0, 50),
    _alibi("CVM", ("numeric",), 250.0, 100),
    _alibi("FET", ("rate",), 120.0, 200),
    _window("NannyML Jensen-Shannon, windows of 500", "nannyml:jensen_shannon", BOTH, "deviations", 3.0, cost=4.0),
    _window(
        "NannyML Kolmogorov-Smirnov, windows of 500", "nannyml:kolmogorov_smirnov", ("numeric",), "deviations", 3.0,
        cost=4.0, real=True,
    ),
    _window(
        "NannyML reconstruction, windows of 500", "nannyml:reconstruction", ("joint",), "deviations", 3.0, cost=6.0,
        real=True,
    ),
    _window(
        "Evidently Wasserstein, windows of 500", "evidently:wasserstein", ("numeric",), "drift score", 0.1,
        nulls=SOME, post=4000, cost=60.0,
    ),
    _window(
        "Evidently Kolmogorov-Smirnov, windows of 500", "evidently:ks", ("numeric",), "-log10 p", 1.301,
        nulls=SOME, post=4000, cost=60.0,
    ),
    _window("Evidently Jensen-Shannon, windows of 500", "evidently:jensenshannon", ("rate",), "drift score", 0.1,
        nulls=SOME, post=4000, cost=60.0,
    ),
    Peer(
        "driftfdr e-CUSUM", "peers", "driftfdr_peers", "ecusum", BOTH, "scores", "-log10 p", default=1.301,
        rest=500, lead=1000, post=5000, cost=5.0, real=True, note="looks for a rise only",
    ),
)  # fmt: skip

# Named, and not run, with the reason.
LEFT_OUT = {
    "Frouros BOCD": "cost grows with every event: 500 to 1,000 us an event in the first 600, and no threshold to tune",
    "Frouros KSWIN": "the test of River's KSWIN again, at 145 us an event, without its p-value",
}
# A peer that watches each feature alone cannot see a change of correlation; of those only River's two stand for all.
