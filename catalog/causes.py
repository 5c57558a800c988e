"""What has changed the seats of a tour: the events of a group, as the history of the tour keeps them."""

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from booking_platform.contract.envelope import Event
from booking_platform.contract.events import BookingCancelled, BookingChanged, BookingCreated
from catalog.bookings import Decision, Outcome

NO_SEATS = (Outcome.REJECTED, Outcome.CHANGE_REJECTED)  # told of too: they are why a tour is full


class Cause(NamedTuple):
    """What one event did to its tour."""

    event_id: str
    booking_id: str  # empty of a creation that names none
    outcome: str
    reserved: int  # seats that its booking holds more than before; below 0: less
    unledgered: int  # seats that are sold outside the ledger more than before
    said: int  # the number of seats in the event

    @property
    def seats(self) -> int:
        """Return the seats that were taken, or below 0 given back.

        Of one booking they add up to what it holds, whether or not its creation came first.
        """
        return self.reserved + self.unledgered


def by_tour(events: Iterable[Event], decisions: Iterable[Decision]) -> dict[int, list[Cause]]:
    """Return what is to be remembered of events: what changed a tour's numbers, or found too few seats."""
    causes: dict[int, list[Cause]] = {}
    for event, decision in zip(events, decisions, strict=True):
        before, after = decision.before, decision.after
        if before is None or after is None:
            continue
        if after != before or decision.outcome in NO_SEATS:
            cause = Cause(
                event.event_id,
                event.payload.booking_id or "",
                decision.outcome,  # type: ignore[arg-type]  # what is refused has no numbers
                after.reserved - before.reserved,
                after.unledgered - before.unledgered,
                _SAID[type(event.payload)](event.payload),
            )
            causes.setdefault(after.tour_id, []).append(cause)
    return causes


def load(text: str) -> tuple[Cause, ...]:
    """Return the causes that ``dump`` has written."""
    return _decoder.decode(text) if text else ()


def dump(causes: Sequence[Cause]) -> str:
    """Return causes as a column holds them."""
    return msgspec.json.encode(causes).decode()


_decoder = msgspec.json.Decoder(tuple[Cause, ...])

_SAID: dict[type, Callable[[Any], int]] = {
    BookingCreated: attrgetter("seats_booked"),
    BookingCancelled: attrgetter("seats_released"),
    BookingChanged: attrgetter("seats"),
}
