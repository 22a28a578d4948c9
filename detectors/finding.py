"""Findings: what detectors say, and how the story of one incident goes on."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from regate.config.model import Family
from regate.detectors.columns import ModelKey

# Revisions that end an incident.
CLOSING = frozenset({"recovered", "withdrawn", "accepted"})
Kind = Literal["change", "harm", "attack", "recurrence", "data_quality", "silence"]
# not_valid and valid are notes on the label-free estimate: no incident, nothing to decide.
Revision = Literal["", "confirmed", "withdrawn", "recovered", "accepted", "not_valid", "valid"]


class Carrier(BaseModel):
    """One chart that carries an incident, in its own units."""

    model_config = ConfigDict(frozen=True)

    chart: str  # "<family>/<subject>/<statistic>", for example feature_drift/income/mean
    family: Family
    subject: str
    statistic: str
    evidence: str  # log10 of the chart's statistic, as a decimal string
    effect: str  # signed effect size in the chart's unit, as a decimal string
    unit: str  # "sigma", "ratio", "probability" ...


class Finding(BaseModel):
    """A finding or a revision of one. Numbers that decide are decimal strings with 6 significant digits."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    type: Literal["finding", "revision", "advice"] = "finding"  # advice: of a detector that promises nothing
    id: str  # UUIDv5 of model key, chart, profile digest, onset, incident number (and revision)
    incident: str  # id of the incident's first finding; equal to id there
    revision: Revision = ""
    tenant: str
    model: str
    model_version: str
    deployment: str
    family: Family
    kind: Kind
    detector: str  # module name
    subject: str  # feature, cohort, class, client or source
    severity: float  # 0 to 1, from performance loss where known, else .5 for a change of inputs
    evidence: str  # log10 of the deciding statistic
    threshold: str  # log10 of what it had to pass
    effect: str
    unit: str
    onset_us: int  # estimated, event time
    detected_us: int  # end of the deciding block, event time
    cell: int  # evaluation cell (second of event time), in a backtest by rows 60 a block
    events: int  # events of this model seen when it was decided
    carriers: tuple[Carrier, ...] = ()
    profile_digest: str = ""
    historical: bool = False
    message: str = ""  # one sentence for a person

    @classmethod
    def first(
        cls,
        key: ModelKey,
        identity: str,
        *,
        family: Family,
        kind: Kind,
        detector: str,
        subject: str,
        severity: float,
        message: str,
        detected_us: int,
        onset_us: int | None = None,
        cell: int | None = None,
        events: int = 0,
        evidence: str = "0",
        threshold: str = "0",
        effect: str = "0",
        unit: str = "",
        carriers: tuple[Carrier, ...] = (),
        profile_digest: str = "",
        historical: bool = False,
    ) -> Finding:
        """Return the first finding of an incident about a model version.

        :param onset_us: by default when it was detected.
        :param cell: by default the second in which it was detected.
        """
        return cls(
            id=identity,
            incident=identity,
            tenant=key.tenant,
            model=key.model,
            model_version=key.version,
            deployment=key.deployment,
            family=family,
            kind=kind,
            detector=detector,
            subject=subject,
            severity=severity,
            evidence=evidence,
            threshold=threshold,
            effect=effect,
            unit=unit,
            onset_us=detected_us if onset_us is None else onset_us,
            detected_us=detected_us,
            cell=detected_us // 1_000_000 if cell is None else cell,
            events=events,
            carriers=carriers,
            profile_digest=profile_digest,
            historical=historical,
            message=message,
        )

    @property
    def scope(self) -> str:
        """Return the gate's scope."""
        return f"{self.tenant}/{self.model}/{self.deployment}"
