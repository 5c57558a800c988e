"""Publishing plain JSON, confirmed by the broker."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import current_app
from django.conf import settings
from kombu import Producer

from booking_platform.messaging import topology

BROKER_SECONDS = 5  # a broker that is frozen ends in an error, not in a request that hangs
PERSISTENT = 2  # AMQP 0-9-1, basic class, delivery-mode


@contextmanager
def producer() -> Iterator[Producer]:
    """Open a producer whose every publish is confirmed, and refused if it reaches no queue."""
    with current_app.connection_for_write(
        transport_options={
            "confirm_publish": True,
            "read_timeout": BROKER_SECONDS,
            "write_timeout": BROKER_SECONDS,
        }
    ) as connection:
        topology.declare(connection, delivery_limit=settings.EVENT_DELIVERY_LIMIT)
        yield Producer(connection)


def publish(
    producer: Producer,
    body: bytes,
    *,
    exchange: str,
    routing_key: str,
    headers: dict[str, Any] | None = None,
) -> None:
    """Publish bytes as they are, persistent.

    Raises:
        amqp.exceptions.ChannelError: no queue takes it, or the broker refused it.
    """
    producer.publish(
        body,
        exchange=exchange,
        routing_key=routing_key,
        headers=headers or {},
        content_type="application/json",
        content_encoding="utf-8",
        delivery_mode=PERSISTENT,
        mandatory=True,
        retry=True,
        retry_policy={"max_retries": 1, "interval_start": 0, "interval_max": 1},
        confirm_timeout=BROKER_SECONDS,
    )


def to_queue(queue: str, body: bytes, *, headers: dict[str, Any]) -> None:
    """Publish to one queue alone, past the exchange that would copy it to others."""
    with producer() as opened:
        publish(opened, body, exchange="", routing_key=queue, headers=headers)
