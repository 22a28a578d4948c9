"""Findings as decide tells them, for tests of who reads them."""

from __future__ import annotations

from tests.telemetry_streams import KEY

from regate.detectors.finding import Carrier, Finding

CHART = "feature_drift/income/mean"


def finding(number: int, revision: str = "", **changes: object) -> Finding:
    carrier = Carrier(
        chart=CHART, family="feature_drift", subject="income", statistic="mean", evidence="1", effect="1", unit="sigma"
    )
    said = {
        "type": "revision" if revision else "finding",
        "id": f"f{number}{revision}",
        "incident": f"f{number}",
        "revision": revision,
        "tenant": KEY.tenant,
        "model": KEY.model,
        "model_version": KEY.version,
        "deployment": KEY.deployment,
        "family": "feature_drift",
        "kind": "change",
        "detector": "feature_drift",
        "subject": "income",
        "severity": 0.5,
        "evidence": "1",
        "threshold": "0",
        "effect": "1",
        "unit": "sigma",
        "onset_us": 1,
        "detected_us": 2,
        "cell": 0,
        "events": 100,
        "carriers": (carrier,),
    }
    return Finding.model_validate({**said, **changes})
