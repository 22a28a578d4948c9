"""What the demo tells: each finding, request, run and gate event as it comes, and the story at the end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table as RichTable

from regate.daemon.bus.port import Reader, TopicPartition
from regate.daemon.bus.topics import Topics
from regate.daemon.gate.events import GateDecision
from regate.daemon.wire.cloudevents import decode_event
from regate.detectors.finding import Finding
from regate.scenarios.contracts import RunRequest, RunResult

Event = Finding | RunRequest | RunResult | GateDecision
KINDS: dict[str, tuple[str, type[Event]]] = {
    "findings": ("finding", Finding),
    "validations": ("run-request", RunRequest),
    "runs": ("run-result", RunResult),
    "gates": ("gate-decision", GateDecision),
}
COLOURS = {"approve": "green", "hold": "yellow", "roll_back": "red", "fail_safe": "bold red", "none": "dim"}


class Tail:
    """New events of regate's output topics since the last look, in the order of their bus times."""

    def __init__(self, reader: Reader, topics: Topics, partitions: int) -> None:
        self._reader = reader
        self._places = {
            TopicPartition(topics.name(logical), number): (logical, 0)
            for logical in KINDS
            for number in range(partitions)
        }

    def look(self) -> Iterator[tuple[int, Event]]:
        """Yield (bus time in ms, event) of everything new."""
        found: list[tuple[int, int, Event]] = []
        ends = self._reader.ends(list(self._places))
        for partition, (logical, start) in self._places.items():
            end = ends[partition]
            if end <= start:
                continue
            kind, model = KINDS[logical]
            for record in self._reader.read(partition, start, end):
                found.append((record.timestamp_ms, len(found), decode_event(record.value, kind, model)))
            self._places[partition] = (logical, end)
        for time_ms, _, event in sorted(found, key=lambda item: item[:2]):
            yield time_ms, event


@dataclass(slots=True)
class Account:
    """The events of one demo, told while they come and once more at the end."""

    console: Console
    findings: list[Finding] = field(default_factory=list)
    requests: list[RunRequest] = field(default_factory=list)
    runs: list[RunResult] = field(default_factory=list)
    decisions: list[GateDecision] = field(default_factory=list)
    last_ms: int = 0

    def take(self, time_ms: int, event: Event) -> None:
        """Keep an event and say it in one line."""
        self.last_ms = max(self.last_ms, time_ms)
        at = datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%H:%M:%S")
        if isinstance(event, Finding):
            self.findings.append(event)
            word = event.revision or event.kind
            self.console.print(f"{at} [cyan]finding[/]    {word}: {_plain(event.message)}")
        elif isinstance(event, RunRequest):
            self.requests.append(event)
            self.console.print(
                f"{at} [blue]re-run[/]     suite {event.suite} on the {event.role} {event.model_version}, "
                f"because of {event.trigger_kind}"
            )
        elif isinstance(event, RunResult):
            self.runs.append(event)
            self.console.print(
                f"{at} [blue]outcome[/]    {event.outcome} on the {event.role}: {event.passed} passed, "
                f"{event.failed} failed, {event.inconclusive} inconclusive, {event.errored} errors in {event.seconds} s"
            )
        else:
            self.decisions.append(event)
            colour = COLOURS.get(event.effective_verdict, "white")
            why = next((reason.message or reason.code for reason in event.reasons), "")
            baseline = event.action.target_baseline
            to = "" if baseline is None else f" to {baseline.name} {baseline.version}"
            self.console.print(
                f"{at} [{colour}]gate[/]       {event.transition} → [{colour}]{event.effective_verdict}{to}[/] "
                f"(was {event.previous_verdict}): {_plain(why)}"
            )

    @property
    def changes(self) -> list[Finding]:
        """Return the findings that are not revisions."""
        return [finding for finding in self.findings if finding.type == "finding"]

    def busy(self) -> bool:
        """Tell whether a run is still asked for and not answered."""
        return len({run.request_id for run in self.runs}) < len({request.id for request in self.requests})

    def tell(self) -> None:
        """Print the story."""
        self.console.rule("What happened")
        if not self.changes:
            self.console.print("Nothing changed: no finding.")
        for finding in self.changes:
            onset = datetime.fromtimestamp(finding.onset_us / 1e6, UTC).strftime("%H:%M:%S")
            seen = datetime.fromtimestamp(finding.detected_us / 1e6, UTC).strftime("%H:%M:%S")
            self.console.print(
                f"- [bold]{finding.kind}[/] in [bold]{_plain(finding.subject)}[/] ({finding.family}): "
                f"began about {onset}, seen {seen}, {_plain(finding.message)}"
            )
        table = RichTable("run", "on", "because of", "outcome", "what failed or stayed open", title="Re-runs")
        causes = {request.id: request.trigger_kind for request in self.requests}
        for run in self.runs:
            notable = [check for check in run.checks if check.outcome in {"fail", "error", "inconclusive", "warn"}]
            said = "\n".join(f"{check.id}: {check.outcome}, {check.message}" for check in notable[:4]) or "nothing"
            table.add_row(
                run.run_id[:8],
                f"{run.role} {run.model_version}",
                causes.get(run.request_id, ""),
                run.outcome,
                _plain(said),
            )
        self.console.print(table)
        gate = RichTable("seq", "verdict", "transition", "valid until", "decision", "because", title="Gate events")
        for decision in self.decisions:
            if decision.transition == "renew":
                continue
            gate.add_row(
                str(decision.seq),
                decision.effective_verdict,
                decision.transition,
                decision.valid_until[11:19],
                decision.id[:13],
                _plain("\n".join(reason.message or reason.code for reason in decision.reasons[:3])),
            )
        self.console.print(gate)
        renewals = sum(decision.transition == "renew" for decision in self.decisions)
        if self.decisions:
            last = self.decisions[-1]
            self.console.print(
                f"The gate says [bold]{last.effective_verdict}[/] for {last.scope.tenant}/{last.scope.model}/"
                f"{last.scope.deployment} ({renewals} renewals on proof)."
            )


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
