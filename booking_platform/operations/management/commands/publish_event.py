"""Publish booking events as a foreign producer would: plain JSON to the exchange, confirmed.

What the platform would refuse by the contract is not published, and said to be wrong, field by field.
"""

import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from itertools import repeat
from typing import Any

import msgspec
from django.core.management.base import BaseCommand, CommandError
from rich.progress import track

from booking_platform.contract.envelope import InvalidEvent, decode, identify
from booking_platform.contract.examples import (
    body,
    booking_cancelled,
    booking_changed,
    booking_created,
    now,
)
from booking_platform.messaging import broker
from booking_platform.messaging.rules import event_types
from booking_platform.operations.watching import Watch, watch

CREATED, CHANGED, CANCELLED = "booking.created", "booking.changed", "booking.cancelled"
BUILT = (CREATED, CHANGED, CANCELLED)  # from options; other events can be given in a file
LONG = 100  # events from which a progress bar is worth its lines
SHOWN = 10  # refusals of one call

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


class _Booking(msgspec.Struct, rename="camel"):
    booking_id: str = ""


class _Event(msgspec.Struct):
    payload: _Booking


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
        parser.add_argument(
            "--as-it-is", action="store_true", help="publish also what the platform will refuse"
        )
        parser.add_argument(
            "--watch", type=float, metavar="SECONDS", help="then show what the platform announces"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        bodies = _lines(options["file"]) if options["file"] else list(_events(options))
        if not options["as_it_is"]:
            _check(bodies, options["routing_key"], in_file=bool(options["file"]))
        if options["watch"] is None:
            self._publish(bodies, options)
            return
        try:
            with watch() as watched:
                self._publish(bodies, options)
                self._show(watched, bodies, options["watch"])
        except broker.UNREACHABLE as error:
            raise CommandError(f"{type(error).__name__}: {error}. Is the broker there?") from error

    def _show(self, watched: Watch, bodies: list[bytes], seconds: float) -> None:
        """Show what is announced: that of these events in full, of others only what it is."""
        ours, others = 0, 0
        event_ids, bookings = _named(bodies)
        self.stdout.write(f"What is announced within {seconds:g} s (Ctrl-C ends it):")
        with suppress(KeyboardInterrupt):
            for heard in watched.heard(seconds):
                if heard.speaks_of(event_ids, bookings):
                    ours += 1
                    self.stdout.write(self.style.SUCCESS(f"{heard.routing_key:<26}{heard}"))
                else:
                    others += 1
                    self.stdout.write(f"  ({heard.routing_key:<23} {heard})")
                self.stdout.flush()  # whoever reads it from a pipe or a file sees it as it comes
        self.stdout.write(f"{ours} about what was published here, {others} about other things.")

    def _publish(self, bodies: list[bytes], options: dict[str, Any]) -> None:
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


def _check(bodies: list[bytes], routing_key: str, *, in_file: bool) -> None:
    """Refuse events that the contract refuses, as a consumer that reads all fields would."""
    payload_type, refusals = event_types()[routing_key], list[str]()
    for number, each in enumerate(bodies, start=1):
        try:
            decode(each, payload_type, now=now())
        except InvalidEvent as error:
            refusals.append(f"line {number}: {error}" if in_file else str(error))
    if refusals:
        shown = list(dict.fromkeys(refusals))
        more = ["…"] * (len(shown) > SHOWN)
        raise CommandError(
            f"Nothing is published: {len(refusals)} of {len(bodies)} events would be refused.\n  "
            + "\n  ".join([*shown[:SHOWN], *more])
            + "\n--as-it-is publishes them all the same."
        )


def _named(bodies: list[bytes]) -> tuple[set[str], set[str]]:
    """Return the ids of events and of their bookings."""
    bookings = set[str]()
    for each in bodies:
        with suppress(msgspec.MsgspecError, UnicodeDecodeError):
            bookings.add(msgspec.json.decode(each, type=_Event).payload.booking_id)
    return {identify(each)[0] for each in bodies} - {""}, bookings - {""}


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
