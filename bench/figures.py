"""Several runs of the same, as one line: medians, and the least and the most."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.cpu import KINDS
from bench.runs import Run

STANDARD = "lesson"  # the contender with which all others are compared


@dataclass(frozen=True)
class Line:
    """What the runs of one contender on one workload came to."""

    workload: str
    contender: str
    unit: str
    runs: int
    count: int  # in all runs
    rate: float  # a second, median
    least: float
    most: float
    cost: dict[str, float]  # microseconds of CPU time for each, median, by kind of process
    lost: int  # in all runs
    ratio: float | None  # to the lesson's consumer, on the same workload
    of_ideal: float | None  # the share of what the world outside allows

    @property
    def total(self) -> float | None:
        """Return the microseconds of CPU time of all kinds, where all are known."""
        return sum(self.cost.values()) if len(self.cost) == len(KINDS) else None


def lines(runs: Sequence[Run]) -> list[Line]:
    """Return a line for each contender and workload, in the order of their first runs."""
    grouped: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        grouped.setdefault((run.workload, run.contender), []).append(run)
    rates = {key: median(run.rate for run in group) for key, group in grouped.items()}
    return [
        _line(group, rates[workload, contender], rates.get((workload, STANDARD)))
        for (workload, contender), group in grouped.items()
    ]


def _line(runs: Sequence[Run], rate: float, standard: float | None) -> Line:
    first = runs[0]
    costs = {kind: [cost for run in runs if (cost := run.cost(kind)) is not None] for kind in KINDS}
    return Line(
        first.workload,
        first.contender,
        first.unit,
        len(runs),
        sum(run.count for run in runs),
        rate,
        min(run.rate for run in runs),
        max(run.rate for run in runs),
        {kind: median(found) for kind, found in costs.items() if found},
        sum(run.lost for run in runs),
        rate / standard if standard else None,
        rate / first.ideal if first.ideal else None,
    )
