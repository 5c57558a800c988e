"""Run the main job with a real worker process, and check what is in the database."""

import sys
from pathlib import Path
from typing import Any

from celery import current_app
from django.conf import settings
from django.core.management.base import BaseCommand
from kombu import Connection
from rich.console import Console
from rich.table import Table

from booking_platform.development.processes import WorkerFailed, migrate, running_worker
from booking_platform.development.scenarios import Scenario, scenarios, wait_for
from booking_platform.messaging.topology import EVENT_QUEUES


class Command(BaseCommand):
    help = __doc__

    def handle(self, *args: Any, **options: Any) -> None:
        console = Console(highlight=False)
        log = Path(settings.VAR_DIR) / "demo-worker.log"
        migrate()
        console.print(f"Database: {settings.DATABASES['default']['ENGINE'].rsplit('.', 1)[1]}")
        console.print(f"Broker:   {_connection().as_uri()}")
        try:
            with running_worker(log) as worker:
                console.print(f"Worker:   process {worker.pid}, two pool processes\n")
                done = [_play(console, letter, scenario) for letter, scenario in _lettered()]
        except WorkerFailed as error:
            console.print(f"[red]{error}[/red]", markup=False)
            sys.exit(1)
        # The worker has finished its groups and stopped: what the database says now stays so.
        left = _left_in_queues()
        good = _show(console, done) and not left
        for queue, count in left.items():
            console.print(f"[red]{count} messages are left in {queue}.[/red]")
        if not good:
            console.print("[red]Not everything is as it must be.[/red] The worker's log ends with:")
            console.print(log.read_text(errors="replace")[-3000:], markup=False)
            sys.exit(1)
        console.print("[green]Everything is as it must be.[/green]")


def _lettered() -> Any:
    return zip("abcdefgh", scenarios(), strict=False)


def _play(console: Console, letter: str, scenario: Scenario) -> tuple[str, Scenario]:
    console.print(f"({letter}) {scenario.title} …")
    scenario.publish()
    settled = wait_for(scenario.settled)
    answers = [f"{what} {ask()}" for what, _, ask in scenario.checks]
    console.print(f"    {'; '.join(answers)}{'' if settled else ' [red](not settled)[/red]'}")
    return letter, scenario


def _show(console: Console, done: list[tuple[str, Scenario]]) -> bool:
    table = Table("", "what", "expected", "in the database", "")
    good = True
    for letter, scenario in done:
        for what, expected, ask in scenario.checks:
            found = ask()
            good = good and found == expected
            mark = "[green]✓[/green]" if found == expected else "[red]✗[/red]"
            table.add_row(f"({letter})", what, str(expected), str(found), mark)
        table.add_section()
    console.print()
    console.print(table)
    return good


def _left_in_queues() -> dict[str, int]:
    """Count what is left of the queues that the platform's worker has to empty."""
    channel: Any  # of AMQP or of the embedded broker
    with _connection() as connection, connection.channel() as channel:
        catalog = [queue.name for queue in EVENT_QUEUES if queue.task_queue == "catalog"]
        sizes = {name: channel.queue_declare(name, passive=True).message_count for name in catalog}
    return {name: size for name, size in sizes.items() if size}


def _connection() -> Connection:
    return current_app.connection_for_read()
