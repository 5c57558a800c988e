"""Runs the audits: tells of each as it goes, and stores what the whole run came to."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

import structlog
from django.db import Error

from booking_platform.messaging import clock
from booking_platform.messaging.metrics import Counter
from booking_platform.messaging.retention import part_of_cleanup
from booking_platform.operations.audits import (
    AUDITS,
    FIGURES,
    Audit,
    CouldNotAudit,
    Figure,
    Finding,
)
from booking_platform.operations.models import AuditRun

log = structlog.get_logger(__name__)

KEPT_FINDINGS = 20  # of each audit, with the run
KEPT = timedelta(days=90)  # runs are remembered for

RUNS = Counter("audit_runs_total", "Audits of all promises, by what they came to.", ["result"])


@dataclass
class Result:
    """What one audit came to."""

    audit: Audit
    found: int = 0
    first: list[Finding] = field(default_factory=list)
    incomplete: str = ""  # why; empty: it looked at all there is


@dataclass
class Report:
    """What a run of all audits came to."""

    results: list[Result] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)

    @property
    def found(self) -> int:
        return sum(result.found for result in self.results)

    @property
    def complete(self) -> bool:
        return not any(result.incomplete for result in self.results)


Tell = Callable[[Audit, Finding], object]


def run(*, outside: Collection[str] = (), tell: Tell = lambda *_: None) -> Report:
    """Run each audit, store what they came to, and return it.

    ``outside`` names whom to ask beside the database. ``tell`` is called for each finding. An audit that
    can't go on is incomplete, and holds up no other.

    Raises:
        django.db.Error: the run can't be stored.
    """
    started = clock.now()
    report = Report()
    for audit in AUDITS.values():
        if not audit.outside or audit.outside in outside:
            report.results.append(_result(audit, tell))
    report.figures = list(_figures())
    AuditRun.objects.create(
        started_at=started,
        finished_at=clock.now(),
        found=report.found,
        results={result.audit.name: _kept(result) for result in report.results},
        figures={figure.name: figure.value for figure in report.figures},
    )
    RUNS.labels("findings" if report.found else "clean" if report.complete else "incomplete").inc()
    return report


def _result(audit: Audit, tell: Tell) -> Result:
    result = Result(audit)
    try:
        for finding in audit.find():
            result.found += 1
            if len(result.first) < KEPT_FINDINGS:
                result.first.append(finding)
            tell(audit, finding)
    except (CouldNotAudit, Error) as error:
        result.incomplete = " ".join(str(error).split())[:500] or type(error).__name__
    _log(result)
    return result


def _log(result: Result) -> None:
    """Log one line, of a level that says whether somebody should look."""
    name, first = result.audit.name, result.first
    if result.found:
        log.error(
            "Audit: a promise is broken", audit=name, found=result.found, first=first[0].words
        )
    if result.incomplete:
        log.error("Audit: not complete", audit=name, why=result.incomplete)
    elif not result.found:
        log.info("Audit: nothing found", audit=name)


def _figures() -> Iterator[Figure]:
    for figures in FIGURES:
        yield from figures()


def _kept(result: Result) -> dict[str, Any]:
    return {
        "found": result.found,
        "incomplete": result.incomplete,
        "first": [asdict(finding) for finding in result.first],
    }


@part_of_cleanup
def forget_runs() -> int:
    """Delete old runs, but for the newest; return how many."""
    old = AuditRun.objects.filter(finished_at__lt=clock.now() - KEPT)
    if newest := AuditRun.newest():
        old = old.exclude(pk=newest.pk)
    return old.delete()[0]
