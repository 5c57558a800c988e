"""``python -m tests.servers python -m bench``: all that is measured, in one run on the same servers.

Contenders take turns: the first run of each, then the second of each, so that a moment in which the
machine has something else to do hits all of them.
"""

import os
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from rich.console import Console

from bench import conditions, latency, outside, plot, report
from bench.contenders.contender import Ground
from bench.contenders.registry import CONTENDERS
from bench.database import database
from bench.figures import lines
from bench.floors import floors
from bench.runs import Run, measure
from bench.workloads import WORKLOADS

EVENTS = int(
    os.environ.get("BENCH_EVENTS", "20000")
)  # of the platform; the others' are a share of it
RUNS = int(os.environ.get("BENCH_RUNS", "3"))
OUTSIDE = int(os.environ.get("BENCH_OUTSIDE", "1000"))  # refunds, and e-mails
FEWEST = 200  # events of a run
FEWEST_OF_FLOORS = 10_000  # messages of a floor: fewer are done before they can be measured

ONCE = ("refunds", "mails", latency.WORKLOAD, floors.WORKLOAD)
LATENCIES = ("platform", "celery-kept", "faststream")
SPEED = "spread"  # the workload whose median says what half of the load is

Plan = Iterator[Run]


def arguments() -> Namespace:
    """Read the command line."""
    parser = ArgumentParser(prog="bench", description=__doc__)
    meanings = "; ".join(f"{each.name}: {each.meaning}" for each in WORKLOADS.values())
    parser.add_argument(
        "--workload",
        action="append",
        choices=(*WORKLOADS, *ONCE),
        help=f"again for more; {meanings}".replace("%", "%%"),
    )
    parser.add_argument("--contender", action="append", choices=tuple(CONTENDERS))
    parser.add_argument("--runs", type=int, default=RUNS, help="of each pair; BENCH_RUNS")
    parser.add_argument("--events", type=int, default=EVENTS, help="of the platform; BENCH_EVENTS")
    parser.add_argument("--outside", type=int, default=OUTSIDE, help="refunds and e-mails")
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("results"))
    given = parser.parse_args()
    given.workload = given.workload or [*WORKLOADS, *ONCE]
    given.contender = given.contender or [*CONTENDERS]
    return given


def throughput(given: Namespace, ground: Ground) -> Plan:
    """Run each contender on each workload, in turns."""
    for number in range(1, given.runs + 1):
        for workload in (each for name, each in WORKLOADS.items() if name in given.workload):
            for contender in (CONTENDERS[name] for name in given.contender):
                if workload.name in contender.workloads:
                    count = max(FEWEST, int(given.events * contender.share))
                    yield measure(contender, workload, ground, count=count, number=number)


def once(given: Namespace, ground: Ground) -> Plan:
    """Run what is measured once: floors, and the platform with servers outside."""
    if floors.WORKLOAD in given.workload:
        messages = max(FEWEST_OF_FLOORS, given.events)
        for how in ("plain", "at-once"):
            yield floors.amqp_python(ground, messages, 1, how=how)
        if run := floors.amqp_c(ground, messages, 1):
            yield run
        for processes in (1, 2):
            yield floors.sql(ground, messages, 1, processes=processes)
    for name, work in (("refunds", outside.refunds), ("mails", outside.mails)):
        if name in given.workload and "platform" in given.contender:
            yield work(ground, given.outside, 1)


def latencies(given: Namespace, ground: Ground, before: list[Run]) -> Plan:
    """Measure latencies: at a fixed rate, and at half of what was measured before."""
    if latency.WORKLOAD not in given.workload:
        return
    chosen = []
    for name in (each for each in LATENCIES if each in given.contender):
        rates = [run.rate for run in before if (run.workload, run.contender) == (SPEED, name)]
        chosen.append((CONTENDERS[name], median(rates) if rates else 0.0))
    yield from latency.measure(chosen, ground)


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended, too
    given, console, runs = arguments(), Console(), list[Run]()
    admin, broker = os.environ["TEST_DATABASE_URL"], os.environ["TEST_RABBITMQ_URL"]
    os.environ |= {"RABBITMQ_URL": broker}
    with database(admin) as connection, TemporaryDirectory(prefix="bp-bench-") as folder:
        ground = Ground(connection, broker, os.environ["DATABASE_URL"], Path(folder))
        found = conditions.found(ground)
        for plan in (throughput, once, partial(latencies, before=runs)):
            for run in plan(given, ground):
                runs.append(run)
                said = f"{run.workload:8} {run.contender:24} {run.rate:9,.0f} {run.unit} a second"
                print(said, flush=True)
                report.write(given.results, runs, found | conditions.ended())
    found |= conditions.ended()
    report.show(console, runs, found)
    if worked := [run for run in runs if run.workload != latency.WORKLOAD]:
        plot.draw(given.results / "figures.png", lines(worked))


if __name__ == "__main__":
    main()
