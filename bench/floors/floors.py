"""Runs of the floors: consuming alone in Python and in C, and the platform's SQL alone."""

import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from kombu.utils.url import parse_url

from bench import broker, database
from bench.checks import compared, ledger, left_in_queues, raise_if_any
from bench.contenders.contender import Contender, Ground
from bench.runs import FROM, Run, Stalled, meter
from bench.workloads import WORKLOADS
from booking_platform.contract.examples import body

WORKLOAD = "floors"
GROUP = 200  # events: the batch of the catalog's queues
SOURCE = Path(__file__).with_name("consume.c")


class Floor(Contender):
    """A queue that is only consumed."""

    queue = "bench-floor"
    keeps_ledger = False


def amqp_python(ground: Ground, count: int, number: int, *, how: str) -> Run:
    """Consume and acknowledge with py-amqp, plain or with all frames that are there read at once."""
    command = [sys.executable, "-m", "bench.floors.consume", how, Floor.queue]
    command += [str(count), str(int(count * FROM)), str(GROUP)]
    return _consumed(f"consume, py-amqp {how}", command, ground, count, number)


def amqp_c(ground: Ground, count: int, number: int) -> Run | None:
    """Consume and acknowledge with rabbitmq-c; return None where that can't be compiled."""
    program = _compiled(ground.folder)
    if program is None:
        return None
    url = parse_url(ground.rabbitmq_url)
    command = [str(program), str(url["hostname"]), str(url["port"] or 5672)]
    command += [str(url["userid"]), str(url["password"]), str(url["virtual_host"] or "/")]
    command += [Floor.queue, str(count), str(int(count * FROM)), str(GROUP)]
    return _consumed("consume, C", command, ground, count, number)


def sql(ground: Ground, count: int, number: int, *, processes: int) -> Run:
    """Apply ready groups of bookings of 200 tours through the platform's inbox, without a broker."""
    database.empty(ground.connection)
    load = WORKLOADS["spread"].make(ground.connection, count)
    bodies = [body(event) for event in load.events]
    groups = [bodies[at : at + GROUP] for at in range(0, count, GROUP)]
    file = ground.folder / "groups"
    file.write_bytes(pickle.dumps(groups))
    ground.connection.execute("CHECKPOINT")
    begin = max(1, int(len(groups) * FROM) // processes)
    commands = [
        [sys.executable, "-m", "bench.floors.sql", *map(str, (file, first, processes, begin))]
        for first in range(processes)
    ]
    measured = count - begin * processes * GROUP
    name = f"SQL alone, {processes} process{'es'[: 2 * (processes > 1)]}"
    run = Run(WORKLOAD, name, number, "events", count, measured, 0)
    run = _timed(name, commands, ground, run)
    raise_if_any(ledger(ground.connection, load, counts_repeats=True))
    return run


def _consumed(name: str, command: list[str], ground: Ground, count: int, number: int) -> Run:
    floor = Floor()
    floor.prepare(ground)
    load = WORKLOADS["spread"].make(ground.connection, count)
    broker.publish(ground.rabbitmq_url, (floor.outgoing(load, event) for event in load.events))
    measured = count - int(count * FROM)
    run = Run(WORKLOAD, name, number, "messages", count, measured, 0)
    run = _timed(name, [command], ground, run)
    raise_if_any(left_in_queues(ground, [Floor.queue]))
    return run


def _timed(name: str, commands: list[list[str]], ground: Ground, run: Run) -> Run:
    """Run commands and fill in what they cost from "begin" to "end", after each of which they wait."""
    run.load_begin = os.getloadavg()[0]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for command in commands
        ]
        measuring = meter(ground, [each.pid for each in processes])
        _wait_for("begin", name, processes)
        before, at = measuring.read(), time.monotonic()
        for each in processes:
            _go_on(each)
        _wait_for("end", name, processes)
        run.seconds = time.monotonic() - at
        after = measuring.read()
        for each in processes:
            each.communicate("\n")
    raise_if_any(
        finding
        for each in processes
        for finding in compared(f"exit status of {name}", each.returncode, 0)
    )
    run.cpu = {kind: after[kind] - before[kind] for kind in after}
    run.load_end = os.getloadavg()[0]
    return run


def _go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def _wait_for(word: str, name: str, processes: Sequence[subprocess.Popen[str]]) -> None:
    for each in processes:
        assert each.stdout is not None
        if (line := each.stdout.readline().strip()) != word:
            raise Stalled(f"{name} has said {line!r} instead of {word!r}")


def _compiled(folder: Path) -> Path | None:
    """Compile the consumer in C, once; return None, and say so, where compiler or library is missing."""
    program = folder / "consume"
    if program.exists():
        return program
    compiler = shutil.which("gcc") or shutil.which("cc")
    command = [compiler or "cc", "-O2", "-o", str(program), str(SOURCE), "-lrabbitmq"]
    if compiler and subprocess.run(command, check=False, capture_output=True).returncode == 0:
        return program
    print("Left out: the consumer in C, which needs gcc and librabbitmq-dev.", file=sys.stderr)
    return None
