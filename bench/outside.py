"""Refunds and e-mails: what is bounded by servers outside, each in a process of its own."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from bench import broker, database
from bench.broker import Outgoing
from bench.checks import compared, left_in_queues, raise_if_any
from bench.contenders.contender import Ground, message
from bench.contenders.platform import Platform
from bench.runs import Run, meter, watch
from booking_platform.contract.examples import Json, body, booking_cancelled
from booking_platform.development.processes import CeleryProcess, PythonProcess, running
from tests.servers import free_port
from tests.stripe_remote import Remote

THREADS = 20
LATENCY = 0.2  # seconds until Stripe answers a request

REFUNDS, MAILS = "payment-gateway.booking-cancelled", "notification.booking-cancelled"
COMPLETED = "SELECT count(*) FROM idempotency_store WHERE status = 'completed'"
SENT = "SELECT count(*) FROM cancellation_emails WHERE state = 'sent'"


def refunds(ground: Ground, count: int, number: int) -> Run:
    """Refund payments at a Stripe that takes its time; each must be refunded once.

    The ideal is one request for each refund. How many were made is counted.
    """
    payments = [f"pi_sandbox_15000_eur_{at}" for at in range(count)]
    events = [
        booking_cancelled(1, f"BK-{at}", paymentId=payment, amount=60)
        for at, payment in enumerate(payments)
    ]
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = ("manage.py", "stripe_sandbox", "--port", str(port), "--latency", str(LATENCY))
    with running(PythonProcess(*command, log_file=ground.folder / "stripe.log")):
        run = Run("refunds", "platform", number, "refunds", count, 0, 0, ideal=THREADS / LATENCY)
        _work(ground, run, events, queue=REFUNDS, done=COMPLETED, env={"STRIPE_API_BASE": url})
        stripe = Remote(url)
        made = Counter(str(refund["payment_intent"]) for refund in stripe.refunds)
        run.notes["requests_each"] = len(stripe.requests) / count
    findings = [
        *compared("refunds completed", database.number(ground.connection, COMPLETED), count)
    ]
    findings += once_each("refunds", made, payments)
    raise_if_any([*findings, *left_in_queues(ground, [REFUNDS])])
    return run


def mails(ground: Ground, count: int, number: int) -> Run:
    """Hand over e-mails to a mail server; each customer must get one."""
    guests = [f"guest-{at}@example.com" for at in range(count)]
    events = [
        booking_cancelled(1, f"BK-{at}", userEmail=guest, tourName="Louvre")
        for at, guest in enumerate(guests)
    ]
    with _mail_server() as (port, received):
        run = Run("mails", "platform", number, "e-mails", count, 0, 0)
        env = {"SMTP_HOST": "127.0.0.1", "SMTP_PORT": port}
        _work(ground, run, events, queue=MAILS, done=SENT, env=env)
    findings = [*compared("e-mails sent", database.number(ground.connection, SENT), count)]
    findings += once_each("e-mails", received, guests)
    raise_if_any([*findings, *left_in_queues(ground, [MAILS])])
    return run


def once_each(what: str, found: Mapping[str, int], wanted: list[str]) -> Iterator[str]:
    """Yield a finding if anything was not done exactly once."""
    missing = [each for each in wanted if not found.get(each)]
    twice = [each for each, times in found.items() if times > 1]
    unknown = found.keys() - set(wanted)
    for problem, names in (("missing", missing), ("done twice", twice), ("unknown", unknown)):
        if names:
            yield f"{what} {problem}: {len(names):,}, such as {min(names)}"


def _work(
    ground: Ground,
    run: Run,
    events: list[Json],
    *,
    queue: str,
    done: str,
    env: Mapping[str, str],
) -> None:
    """Have a worker with threads do what events ask for; fill in what it cost."""
    database.empty(ground.connection)
    Platform().prepare(ground)
    messages = (Outgoing("", queue, message(body(event))) for event in events)
    broker.publish(ground.rabbitmq_url, messages)
    app = "payments" if queue == REFUNDS else "notifications"
    options = ("-P", "threads", "-c", str(THREADS), "-Q", app)
    worker = CeleryProcess(ground.folder / "worker.log", "worker", *options, env=env)
    run.load_begin = os.getloadavg()[0]
    with running(worker):
        progress = partial(database.number, ground.connection, done)
        measuring = meter(ground, [worker.process.pid])
        run.seconds, run.measured, run.cpu = watch(measuring, [worker], progress, len(events))
    run.load_end = os.getloadavg()[0]


@contextmanager
def _mail_server() -> Iterator[tuple[str, Counter[str]]]:
    """Run a mail server; yield its port, and a counter that is filled in at the end."""
    received: Counter[str] = Counter()
    command = [sys.executable, "-m", "bench.mail_sandbox"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), received
        finally:
            told, _ = process.communicate("\n")
            received.update(json.loads(told))
