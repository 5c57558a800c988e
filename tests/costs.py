"""What tests cost, in CPU time: ``pytest -p tests.costs`` prints the dearest modules.

A test is charged for its process and all that this has started, a nursery and a browser with it, from the
set-up of its fixtures to their end. Servers that the tests only use are charged to nobody. ``COSTS`` names a
folder for a line of JSON a test.
"""

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from heapq import nlargest
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest

TICKS = os.sysconf("SC_CLK_TCK")  # a second
SHOWN = 40  # modules


def cpu_seconds() -> float:
    """Return the CPU time of this process, of those it has started, and of those that these have."""
    children: dict[int, list[int]] = defaultdict(list)
    ticks: dict[int, int] = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            children[int(fields[1])].append(int(pid))
            ticks[int(pid)] = sum(map(int, fields[11:15]))
    family = [os.getpid()]
    for each in family:
        family += children[each]
    return sum(ticks.get(each, 0) for each in family) / TICKS


class Costs:
    """The costs of the tests of one process; those of the processes of ``-n`` come with their reports."""

    def __init__(self) -> None:
        self.by_module: defaultdict[str, float] = defaultdict(float)
        self.collected = 0.0  # CPU seconds
        folder = os.environ.get("COSTS")
        self._lines = (Path(folder) / f"{os.getpid()}.jsonl").open("w") if folder else None

    def pytest_collection_finish(self) -> None:
        self.collected = cpu_seconds()
        self._write(nodeid="(collection)", when="", cpu=self.collected, wall=0)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._began = cpu_seconds(), time.perf_counter()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: Any) -> Iterator[None]:
        report: Any = yield
        cpu, wall = cpu_seconds(), time.perf_counter()
        report.user_properties.append(("cpu", cpu - self._began[0]))
        self._write(
            nodeid=item.nodeid, when=call.when, cpu=cpu - self._began[0], wall=wall - self._began[1]
        )
        self._began = cpu, wall
        return report  # type: ignore[no-any-return]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, seconds in report.user_properties:
            if name == "cpu" and isinstance(seconds, float):
                self.by_module[report.nodeid.partition("::")[0]] += seconds

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.section("CPU seconds")
        terminalreporter.write_line(f"{sum(self.by_module.values()):8.1f} in all")
        for module, seconds in nlargest(SHOWN, self.by_module.items(), key=itemgetter(1)):
            terminalreporter.write_line(f"{seconds:8.1f} {module}")

    def _write(self, **line: object) -> None:
        if self._lines:
            print(json.dumps(line), file=self._lines, flush=True)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Costs(), "costs")
