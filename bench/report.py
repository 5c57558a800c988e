"""What was measured, as tables on the terminal and as CSV."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import latency
from bench.conditions import Conditions
from bench.cpu import KINDS
from bench.figures import STANDARD, Line, lines
from bench.runs import Run

WIDTH = 150  # columns: what is narrower, cuts figures
# Of the kinds of processes, in their order.
SHORT = ("sessions", "server", "broker", "main", "pool")
MEANING = (
    "CPU time. sessions: PostgreSQL's, of this database; server: PostgreSQL's own processes; broker: "
    "RabbitMQ, whoever uses it; main: the processes that were started; pool: their children."
)


def show(console: Console, runs: Sequence[Run], conditions: Conditions) -> None:
    """Print the tables, and the conditions under them."""
    console.width = max(console.width, WIDTH)
    if worked := [run for run in runs if run.workload != latency.WORKLOAD]:
        console.print(_throughput(lines(worked)))
        console.print(MEANING, style="dim")
    if latencies := [run for run in runs if run.workload == latency.WORKLOAD]:
        console.print(_latency(latencies))
    for run in runs:
        if "requests_each" in run.notes:
            each = run.notes["requests_each"]
            console.print(
                f"Refunds: {each:.2f} requests to Stripe for each. Ideal is one, and so "
                f"{run.ideal:g} a second: the threads, divided by Stripe's latency."
            )
    console.print("; ".join(f"{name}: {value}" for name, value in conditions.items()), style="dim")


def write(folder: Path, runs: Sequence[Run], conditions: Conditions) -> None:
    """Write ``runs.csv``, a row for each run, and ``conditions.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "conditions.json").write_text(json.dumps(conditions, indent=2) + "\n")
    notes = sorted({name for run in runs for name in run.notes})
    with (folder / "runs.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["workload", "contender", "run", "unit", "count", "measured", "seconds", "per_second"]
            + [f"cpu_us_{kind.replace(' ', '_')}" for kind in KINDS]
            + ["lost", "ideal_per_second", "load_begin", "load_end", *notes]
        )
        writer.writerows(_row(run, notes) for run in runs)


def _row(run: Run, notes: Sequence[str]) -> list[object]:
    return [
        run.workload,
        run.contender,
        run.number,
        run.unit,
        run.count,
        round(run.measured),
        f"{run.seconds:.3f}",
        f"{run.rate:.1f}",
        *(_plain(run.cost(kind)) for kind in KINDS),
        run.lost,
        "" if run.ideal is None else f"{run.ideal:g}",
        f"{run.load_begin:.2f}",
        f"{run.load_end:.2f}",
        *(_plain(run.notes.get(name)) for name in notes),
    ]


def _throughput(found: Sequence[Line]) -> Table:
    table = Table(title="Speed, and CPU time in µs for each: medians of the runs")
    table.add_column("workload", no_wrap=True)
    table.add_column("contender", no_wrap=True)
    for name in ("a second", "least–most", "runs", f"÷ {STANDARD}"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in (*SHORT, "all"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("remarks")
    for at, line in enumerate(found):
        last = at + 1 == len(found) or found[at + 1].workload != line.workload
        table.add_row(*_cells(line), end_section=last)
    return table


def _cells(line: Line) -> list[str]:
    return [
        line.workload,
        line.contender,
        f"{line.rate:,.0f}",
        f"{line.least:,.0f}–{line.most:,.0f}",
        str(line.runs),
        ""
        if line.ratio is None
        else f"{line.ratio:.2f}"
        if line.ratio < 10
        else f"{line.ratio:.0f}",
        *(f"{line.cost[kind]:,.0f}" if kind in line.cost else "" for kind in KINDS),
        "" if line.total is None else f"{line.total:,.0f}",
        "; ".join(_remarks(line)),
    ]


def _remarks(line: Line) -> list[str]:
    remarks = [] if line.unit == "events" else [line.unit]
    if line.lost:
        remarks.append(f"{line.lost:,} of {line.count:,} lost")
    if line.of_ideal is not None:
        remarks.append(f"{line.of_ideal:.0%} of ideal")
    return remarks


def _latency(runs: Sequence[Run]) -> Table:
    table = Table(title="From publish to commit, in ms")
    table.add_column("contender")
    for name in ("events a second", "events", "50 %", "99 %", "worst"):
        table.add_column(name, justify="right")
    for run in runs:
        cuts = (f"{run.notes[name]:.1f}" for name in ("p50_ms", "p99_ms", "worst_ms"))
        table.add_row(run.contender, f"{run.rate:,.0f}", f"{run.count:,}", *cuts)
    return table


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
