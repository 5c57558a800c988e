"""The demo: the main job with a real worker process, checked against the database."""

import os
from itertools import chain
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from celery import current_app
from django.conf import settings
from kombu import Connection
from rich.console import Console
from rich.table import Table

from booking_platform.development.announcement_scenarios import announcement_scenarios
from booking_platform.development.email_scenarios import email_scenarios
from booking_platform.development.life_scenarios import life_scenarios
from booking_platform.development.mail_server import MailServer
from booking_platform.development.mail_server import running as mail_server
from booking_platform.development.processes import CeleryProcess, migrate, running
from booking_platform.development.refund_scenarios import refund_scenarios
from booking_platform.development.scenario import (
    RUN,
    Scenario,
    cancelled,
    created,
    new_tour,
    publish,
    wait_for,
)
from booking_platform.development.seat_scenarios import seat_scenarios
from booking_platform.development.stripe_sandbox import Sandbox
from booking_platform.development.stripe_sandbox import running as stripe_sandbox
from booking_platform.messaging.models import ProcessedEvent
from booking_platform.messaging.rules import CONSUMERS

# Short, so that what has to be tried again is within the minute that a demo may take.
QUICK = {
    "LEASE_SECONDS": "3",
    "RETRY_BASE_SECONDS": "0.5",
    "RETRY_MAX_SECONDS": "1",
    "SWEEP_SECONDS": "1",
    "RELAY_SECONDS": "1",
    "STRIPE_SECRET_KEY": "sk_test_sandbox",
    "SMTP_HOST": "",  # files first
    "SMTP_SECURITY": "none",
    "SMTP_USER": "",
    "SMTP_PASS": "",
    "EMAIL_UNCERTAIN": "ask",
}

LAST_SECONDS = 120  # for all that is still queued, on a machine that is busy

Done = list[tuple[str, Scenario]]


def run() -> bool:
    """Play all scenarios, and print what was expected and found; return whether all is well.

    Raises:
        ProcessFailed: the worker did not start or stop.
        CommandError: the database can't be reached.
    """
    console = Console(highlight=False)
    folder = Path(settings.VAR_DIR)
    name = ("--hostname", f"demo-{os.getpid()}@%h")
    worker = CeleryProcess(folder / "demo-worker.log", "worker", "--concurrency", "2", *name)
    migrate()
    console.print(f"Database: {settings.DATABASES['default']['ENGINE'].rsplit('.', 1)[1]}")
    console.print(f"Broker:   {_connection().as_uri()}")
    with stripe_sandbox() as stripe, mail_server() as mail:
        console.print(f"Stripe:   a sandbox at {stripe.url}")
        console.print(f"Mail:     {settings.MAIL_DIR}, then 127.0.0.1:{mail.port}")
        os.environ |= QUICK | {"STRIPE_API_BASE": stripe.url}
        done = _perform(console, stripe, mail, worker, folder)
        # The worker has finished its groups and stopped: what is found now stays so.
        good = _show(console, done)
    left = _left_in_queues()
    for queue, count in left.items():
        console.print(f"[red]{count} messages are left in {queue}.[/red]")
    if left or not good:
        console.print("[red]Not everything is as it must be.[/red] The worker's log ends with:")
        console.print(worker.log[-3000:], markup=False)
        return False
    console.print("[green]Everything is as it must be.[/green]")
    return True


def _perform(
    console: Console, stripe: Sandbox, mail: MailServer, worker: CeleryProcess, folder: Path
) -> Done:
    """Play all scenarios with a real worker and beat, which are stopped in the end."""
    schedule = ("--schedule", str(folder / "demo-schedule"))
    beat = CeleryProcess(folder / "demo-beat.log", "beat", *schedule)
    with running(beat, worker):
        worker.wait_until_ready()
        console.print(f"Worker:   process {worker.process.pid}, two pool processes\n")
        refunds, emails = refund_scenarios(stripe, worker), email_scenarios(mail, worker)
        scenarios = chain(
            seat_scenarios(),
            refunds,
            emails,
            life_scenarios(stripe, mail),
            announcement_scenarios(),
        )
        done = [_play(console, *one) for one in zip(ascii_lowercase, scenarios, strict=False)]
        _wait_for_repeats()
        return done


def _wait_for_repeats() -> None:
    """Return when an event published last is processed by all: what came before it is in the pool.

    A worker that is stopped earlier returns repeats to their queues, as it should.
    """
    tour = new_tour("The last one", capacity=1)
    last = [created(tour, "last", event="last-1"), cancelled(tour, "last", event="last-2")]
    publish(last)
    keys = [key for key, _ in last]
    consumers = sum(keys.count(each.routing_key) for each in CONSUMERS.values())
    processed = ProcessedEvent.objects.filter(event_id__startswith=f"{RUN}-last-")
    wait_for(lambda: processed.count() == consumers, seconds=LAST_SECONDS)


def _play(console: Console, letter: str, scenario: Scenario) -> tuple[str, Scenario]:
    console.print(f"({letter}) {scenario.title} …")
    scenario.publish()
    finished = wait_for(scenario.finished)
    answers = [f"{what} {ask()}" for what, _, ask in scenario.checks]
    console.print(f"    {'; '.join(answers)}{'' if finished else ' [red](not finished)[/red]'}")
    return letter, scenario


def _show(console: Console, done: Done) -> bool:
    table = Table("", "what", "expected", "found", "")
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
        sizes = {
            name: channel.queue_declare(name, passive=True).message_count for name in CONSUMERS
        }
    return {name: size for name, size in sizes.items() if size}


def _connection() -> Connection:
    return current_app.connection_for_read()
