"""Publish booking events as a foreign producer would: plain JSON to the exchange, confirmed."""

import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from itertools import repeat
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from rich.progress import track

from booking_platform.contract.examples import (
    body,
    booking_cancelled,
    booking_changed,
    booking_created,
)
from booking_platform.messaging import broker
from booking_platform.messaging.rules import event_types

CREATED, CHANGED, CANCELLED = "booking.created", "booking.changed", "booking.cancelled"
BUILT = (CREATED, CHANGED, CANCELLED)  # from options; other events can be given in a file
LONG = 100  # events from which a progress bar is worth its lines

# Options, and the fields of a cancellation's payload that they fill.
OPTIONAL = {
    "remaining": "seatsRemaining",
    "revision": "revision",
    "payment": "paymentId",
    "amount": "amount",
    "currency": "currency",
    "email": "userEmail",
    "tour_name": "tourName",
    "locale": "locale",
}


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("routing_key", choices=sorted(event_types()))
        parser.add_argument("--tour", type=int, metavar="ID")
        parser.add_argument(
            "--seats", type=int, default=1, help="booked, released, or of a change: the new total"
        )
        parser.add_argument(
            "--remaining",
            type=int,
            metavar="SEATS",
            help="that a cancelled booking keeps: the step",
        )
        parser.add_argument(
            "--revision", type=int, help="of the booking: grows with each change and cancellation"
        )
        parser.add_argument("--booking", metavar="ID", help="with --count: ID-1, ID-2, …")
        parser.add_argument("--payment", metavar="ID", help="Stripe's payment intent")
        parser.add_argument("--amount", type=_amount, help="to refund, in major units: 150.00")
        parser.add_argument("--currency")
        parser.add_argument("--email")
        parser.add_argument("--tour-name")
        parser.add_argument("--locale")
        parser.add_argument("--count", type=int, default=1, help="how many events")
        parser.add_argument(
            "--event-id", help="with --count: the same event every time, as a broker may repeat it"
        )
        parser.add_argument("--file", help="publish each line as it is ('-': standard input)")

    def handle(self, *args: Any, **options: Any) -> None:
        bodies = _lines(options["file"]) if options["file"] else list(_events(options))
        published = 0
        try:
            with broker.producer() as producer:
                for each in track(bodies, "Publishing", disable=len(bodies) < LONG):
                    broker.publish(producer, each, routing_key=options["routing_key"])
                    published += 1
        except broker.UNREACHABLE as error:
            raise CommandError(
                f"{published} of {len(bodies)} events are published, and the next one is not "
                f"confirmed: {type(error).__name__}: {error}. Is the broker of RABBITMQ_URL there?"
            ) from error
        plural = "" if len(bodies) == 1 else "s"
        self.stdout.write(f"{len(bodies)} event{plural} published to {options['routing_key']}.")


def _lines(path: str) -> list[bytes]:
    try:
        with open(path if path != "-" else sys.stdin.fileno(), "rb") as file:
            return [line.rstrip(b"\r\n") for line in file if line.strip()]
    except OSError as error:
        raise CommandError(f"--file {path}: {error.strerror}") from error


def _events(options: dict[str, Any]) -> Iterator[bytes]:
    if options["routing_key"] not in BUILT:
        raise CommandError(f"Events of {options['routing_key']} can only be published with --file.")
    if options["tour"] is None:
        raise CommandError("--tour is missing: give the tour's id, or events with --file")
    if options["count"] < 1:
        raise CommandError(f"--count is {options['count']}: give 1 or more")
    if options["routing_key"] != CREATED and not options["booking"]:
        raise CommandError("--booking is missing: only a creation need not name its booking")
    if options["routing_key"] == CHANGED and options["revision"] is None:
        raise CommandError("--revision is missing: the greatest one says how many seats there are")
    if options["event_id"]:
        yield from repeat(_event(options, options["booking"]), options["count"])
        return
    for number in range(1, options["count"] + 1):
        booking = options["booking"]
        if booking and options["count"] > 1:
            booking = f"{booking}-{number}"
        yield _event(options, booking)


def _event(options: dict[str, Any], booking: Any) -> bytes:
    said, event_id = (options["tour"], booking, options["seats"]), options["event_id"] or ""
    if options["routing_key"] == CREATED:
        return body(booking_created(*said, event_id=event_id))
    if options["routing_key"] == CHANGED:
        return body(booking_changed(*said, revision=options["revision"], event_id=event_id))
    given = {name: options[option] for option, name in OPTIONAL.items()}
    optional = {name: value for name, value in given.items() if value is not None}
    return body(booking_cancelled(*said, event_id=event_id, **optional))


def _amount(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        raise ArgumentTypeError(f"{text!r} is no number, such as 150.00") from None
    if not amount.is_finite():
        raise ArgumentTypeError(f"{text!r} is no amount")
    return amount
