"""Queues of the version before, with what is in them, become those of this one."""

from contextlib import suppress
from typing import Any

import pytest
from amqp.exceptions import PreconditionFailed
from django.core.management import CommandError, call_command

from booking_platform import servers
from catalog.models import Tour
from tests.amqp_frames import (
    EXPIRATION,
    MESSAGE_ID,
    USER_ID,
    FrameWriter,
    properties,
    short,
)
from tests.events import body, created
from tests.platform import Platform, assert_adds_up, parked
from tests.servers import wait_until

pytestmark = pytest.mark.servers

CREATED = "tour-catalog.booking-created"
DEAD = "booking-events.dead-letter"


def as_before(channel: Any) -> None:
    """Declare what the version before has declared."""
    channel.exchange_declare("booking-events", "topic", durable=True, auto_delete=False)
    channel.exchange_declare(DEAD, "fanout", durable=True, auto_delete=False)
    channel.queue_declare(DEAD, durable=True, auto_delete=False)
    channel.queue_bind(DEAD, DEAD)
    arguments = {
        "x-queue-type": "quorum",
        "x-delivery-limit": 20,
        "x-dead-letter-exchange": DEAD,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    channel.queue_declare(CREATED, durable=True, auto_delete=False, arguments=arguments)
    channel.queue_bind(CREATED, "booking-events", "booking.created")
    for name in ("maintenance", "catalog", "payments", "notifications"):
        channel.queue_declare(name, durable=True, auto_delete=False)


class TestRenewal:
    def test_nothing_is_lost(self, platform: Platform, tour: Tour) -> None:
        platform.delete_queues()
        with platform.channel() as channel:
            as_before(channel)
            dead = channel.prepare_message(body(created(tour.pk, "D", event_id="dead")))
            channel.basic_publish(dead, exchange=DEAD, routing_key="booking.created")
        platform.publish(created(tour.pk, f"B{n}") for n in range(46))
        for copy_to in (CREATED, f"{CREATED}.aside"):
            event = created(tour.pk, f"copied to {copy_to}")
            platform.publish([event], headers={"CC": [copy_to]})
        with FrameWriter(servers.broker_url()) as writer:
            for odd in (
                {USER_ID: short(b"guest")},
                {MESSAGE_ID: short(b"\xff" * 200), EXPIRATION: short(b"600000")},
            ):
                writer.publish(
                    body(created(tour.pk, f"odd {sorted(odd)}")),
                    exchange=b"booking-events",
                    key=b"booking.created",
                    props=properties(odd),
                )

        call_command("renew_queues", verbosity=0)
        platform.publish([created(tour.pk, "after")])
        platform.start("-c", "1")

        platform.wait_for_processed(51)
        platform.wait_for(lambda: parked() == [("broker", "dead")], "the dead letter is recorded")
        assert_adds_up(tour)
        with platform.channel() as channel:
            assert channel.queue_declare(CREATED, passive=True).message_count == 0
        assert tour.reserved_seats == 51

    def test_where_there_is_nothing_yet_everything_is_declared(
        self, platform: Platform, tour: Tour
    ) -> None:
        platform.delete_queues()
        names = ("booking-events", "booking-events.check", "booking-events.known")
        with platform.channel() as channel:
            for name in names:
                channel.exchange_delete(name)
        call_command("renew_queues", verbosity=0)
        platform.publish([created(tour.pk, "B")])
        platform.publish([created(tour.pk, "C", event_id="lost")], key="lost")
        platform.start("-c", "1")
        platform.wait_for_processed(1)
        platform.wait_for(lambda: parked() == [("unroutable", "lost")], "the net is there")

    def test_what_a_crash_has_left_aside_comes_back(self, platform: Platform, tour: Tour) -> None:
        aside = f"{CREATED}.aside"
        with platform.channel() as channel:
            arguments = {"x-queue-type": "quorum", "x-delivery-limit": 2**31 - 1}
            channel.queue_declare(aside, durable=True, auto_delete=False, arguments=arguments)
            channel.basic_publish(
                channel.prepare_message(body(created(tour.pk, "B"))), routing_key=aside
            )
        call_command("renew_queues", verbosity=0)
        platform.start("-c", "1")
        platform.wait_for_processed(1)

    def test_it_waits_until_the_workers_are_gone(self, platform: Platform) -> None:
        platform.start("-c", "1")
        with platform.channel() as channel:
            wait_until(lambda: self.is_made_anew(platform, channel), what="its queue is an old one")
            channel.basic_consume("catalog")
            with pytest.raises(CommandError, match="A worker consumes catalog"):
                call_command("renew_queues", verbosity=0)

    @staticmethod
    def is_made_anew(platform: Platform, channel: Any) -> bool:
        """Make a queue as older versions made it; false if the worker, which lost it, was faster."""
        platform.delete_queue("catalog")
        with suppress(PreconditionFailed):
            channel.queue_declare("catalog", durable=True, auto_delete=False)
            return True
        return False
