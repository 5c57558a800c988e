"""Refunds a second: one worker with 20 threads, a Stripe sandbox that answers after 200 ms.

The sandbox is a process of its own. The ceiling is 20 threads / 0.2 s = 100 refunds a second; the
figure is refunds completed, from the first row's creation to the last one's last write.
"""

import os
import sys

import amqp

from bench.throughput import connect, console, database, worker
from booking_platform.development.processes import PythonProcess, running
from tests.events import body, cancelled
from tests.servers import free_port, wait_until
from tests.stripe_remote import Remote

REFUNDS = int(os.environ.get("BENCH_REFUNDS", "1500"))
LATENCY = 0.2  # seconds
THREADS = 20


def publish(payments: list[str]) -> None:
    with connect() as connection:
        channel = connection.channel()
        for number, payment in enumerate(payments):
            event = cancelled(1, f"BK-{number}", paymentId=payment, amount=60)
            message = amqp.Message(body(event), delivery_mode=2)
            channel.basic_publish_confirm(message, "booking-events", "booking.cancelled")


def main() -> None:
    port = free_port()
    os.environ |= {"STRIPE_API_BASE": f"http://127.0.0.1:{port}"}
    stripe = Remote(os.environ["STRIPE_API_BASE"])
    command = ("manage.py", "stripe_sandbox", "--port", str(port), "--latency", str(LATENCY))
    with database() as connection, running(PythonProcess(*command)):
        payments = [f"pi_sandbox_15000_eur_{number}" for number in range(REFUNDS)]
        publish(payments)
        with worker("booking_platform", "-P", "threads", "-c", str(THREADS), "-Q", "payments"):

            def done() -> bool:
                count = "SELECT count(*) FROM idempotency_store WHERE status = 'completed'"
                return connection.execute(count).fetchone() == (REFUNDS,)

            wait_until(done, seconds=300, what="all refunds are completed")
        span = "SELECT extract(epoch FROM max(updated_at) - min(created_at)) FROM idempotency_store"
        row = connection.execute(span).fetchone()
        assert row is not None
        [seconds] = row
        made = len(stripe.refunds)
    console.print(
        f"{REFUNDS} refunds in {seconds:.1f} s: {REFUNDS / float(seconds):.0f} a second with "
        f"{THREADS} threads, Stripe answering in {1000 * LATENCY:.0f} ms; {made} at Stripe"
    )
    sys.exit(made != REFUNDS)


if __name__ == "__main__":
    main()
