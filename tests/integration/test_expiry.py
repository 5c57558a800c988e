"""Sweeps and the attempts that they ask for: they wait for a while, by nobody's clock, and don't pile up."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any
from uuid import uuid4

import pytest
from celery import current_app
from django.conf import settings
from kombu import Producer, Queue

from booking_platform.messaging import sweeps
from booking_platform.messaging.rules import SWEEPS
from payments import tasks
from payments.models import Refund
from tests.factories import RefundFactory, past
from tests.platform import Platform
from tests.servers import wait_until

MADE_OF_FILES = settings.EMBEDDED


@contextmanager
def queue(**arguments: Any) -> Iterator[tuple[Any, Producer]]:
    """Declare a queue of a name of its own, for as long as a block runs."""
    with current_app.connection_for_write() as connection:
        made = Queue(f"expiry-{uuid4().hex}", queue_arguments=arguments)(connection.channel())
        made.declare()
        try:
            yield made, Producer(connection)
        finally:
            made.delete()


def size(of: Any) -> int:
    return int(of.queue_declare(passive=True).message_count)


KINDS: list[dict[str, str]] = [{}] if MADE_OF_FILES else [{}, {"x-queue-type": "quorum"}]


@pytest.mark.parametrize("arguments", KINDS, ids=lambda kind: kind.get("x-queue-type", "classic"))
class TestTheBroker:
    def test_it_drops_what_has_waited_for_too_long(self, arguments: dict[str, str]) -> None:
        with queue(**arguments) as (made, producer):
            producer.publish("late", routing_key=made.name, expiration=0.001)
            producer.publish("in time", routing_key=made.name, expiration=600)
            over = time.monotonic() + 0.05
            wait_until(lambda: time.monotonic() > over, what="the first has expired")
            bodies: list[Any] = []

            def taken() -> list[Any]:
                message = made.get(no_ack=True)
                bodies.extend([message.payload] if message else [])
                return bodies

            wait_until(taken, what="a message is taken")
            assert bodies == ["in time"]

    def test_they_do_not_pile_up_where_nobody_reads(self, arguments: dict[str, str]) -> None:
        sent = count(1)
        with queue(**arguments) as (made, producer):

            def few() -> bool:
                producer.publish("a sweep", routing_key=made.name, expiration=0.001)
                return next(sent) > 20 and size(made) < 5

            wait_until(few, what="most are gone")


@pytest.mark.django_db(transaction=True)
class TestSweeps:
    def test_beat_says_how_long_and_not_until_when(self) -> None:
        entries = sweeps.beat_entries()
        assert set(entries) == set(SWEEPS)
        for entry in entries.values():
            assert entry["options"] == {"expiration": max(10.0, settings.SWEEP_SECONDS)}

    def test_an_attempt_is_asked_for_without_a_time(self, platform: Platform) -> None:
        RefundFactory.create(next_attempt_at=past())
        sweeps.sweep(Refund, tasks.attempt, None)
        found: list[Any] = []

        def taken() -> bool:
            with platform.channel() as channel:
                found.append(channel.basic_get("payments", no_ack=True))
            return found[-1] is not None

        wait_until(taken, what="the attempt is asked for")
        message = found[-1]
        properties = message.properties
        headers = properties.get("application_headers") or message.headers
        assert (headers["task"], headers["expires"]) == ("payments.attempt", None)
        assert int(properties["expiration"]) == 60_000
