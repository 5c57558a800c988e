"""The events that producers publish, field by field.

The JSON name of a field is its name here in camelCase. Unknown fields are ignored. The bounds are
those of the database columns in which the values are stored, so that no value can overflow there.
"""

from decimal import Decimal
from typing import Annotated

from msgspec import Meta

from booking_platform.contract.envelope import Identifier, Payload
from booking_platform.contract.payloads import Note

MAX_SEATS = 1_000_000  # per event; far above any tour, far below what the columns hold

# The descriptions and examples are what a refusal says of the field.
TourId = Annotated[
    int, Meta(ge=1, le=2**63 - 1, description="a JSON integer from 1 to 2⁶³−1", examples=[42])
]
Seats = Annotated[
    int,
    Meta(ge=1, le=MAX_SEATS, description=f"a JSON integer from 1 to {MAX_SEATS:,}", examples=[2]),
]
SeatsLeft = Annotated[
    int,
    Meta(ge=0, le=MAX_SEATS, description=f"a JSON integer from 0 to {MAX_SEATS:,}", examples=[1]),
]
Revision = Annotated[
    int, Meta(ge=0, le=2**63 - 1, description="a JSON integer from 0 to 2⁶³−1", examples=[7])
]
Amount = Annotated[Decimal, Meta(description="a number with a decimal point", examples=["80.00"])]
Currency = Annotated[
    str, Meta(min_length=3, max_length=3, description="three letters", examples=["eur"])
]
Address = Annotated[
    str,
    Meta(
        max_length=1000,
        description="a string of up to 1,000 characters",
        examples=["customer@example.com"],
    ),
]
TourName = Annotated[
    str, Meta(max_length=10_000, description="a string of up to 10,000 characters")
]
Locale = Annotated[
    str,
    Meta(
        min_length=2,
        max_length=35,
        description="a string of 2 to 35 characters",
        examples=["en-GB"],
    ),
]


class BookingCreated(Payload, frozen=True, kw_only=True):
    """A customer booked seats on a tour. The booking id is optional."""

    named_by = "bookingId"
    notes = {
        "tour_id": Note("the tour", 42),
        "seats_booked": Note("how many seats are booked", 2),
        "booking_id": Note("without it the booking can't be cancelled by name", "BK-1"),
    }

    tour_id: TourId
    seats_booked: Seats
    booking_id: Identifier | None = None

    @property
    def aggregate_id(self) -> str:
        return self.booking_id or ""


class BookingCancelled(Payload, frozen=True, kw_only=True):
    """A customer's booking was cancelled, or a part of it; ``amount`` is to be refunded, in major units.

    ``seats_remaining`` is the number of seats that the booking keeps, and the name of this step of
    its life. Without it the whole booking is meant, except for the seats: never more of them are
    released than ``seats_released`` says.
    """

    named_by = "bookingId"
    notes = {
        "booking_id": Note("the booking", "BK-1"),
        "tour_id": Note("its tour", 42),
        "seats_released": Note("how many seats are given back", 1),
        "seats_remaining": Note(
            "the seats that the booking keeps. It is the name of the step: give it, and a partial "
            "cancellation can come twice, or out of order, without harm",
            1,
        ),
        "revision": Note(
            "grows with each step of the booking's life; tells whether a change is newer than this, "
            "and steps apart that leave as many seats",
            7,
        ),
        "payment_id": Note("Stripe's payment intent, or its charge", "pi_3Pk8Yw2eZvKYlo2C"),
        "amount": Note(
            "to refund, in major units; read as an exact decimal. 0: nothing is to be refunded",
            Decimal("80.00"),
        ),
        "currency": Note(
            "one that Stripe has; the amount must fit its smallest unit exactly. Without it the "
            "payment's own currency is meant",
            "eur",
        ),
        "user_email": Note(
            "one address, such as `ann@example.com`; without it nobody is told", "ann@example.com"
        ),
        "tour_name": Note("shown in the e-mail, on one line, the first 200 characters", "Giverny"),
        "locale": Note(
            "`en-GB`, `fr_CA`, …: the e-mail's language and how it writes amounts; French where "
            "there is none or it is not on offer",
            "en-GB",
        ),
    }

    booking_id: Identifier
    tour_id: TourId
    seats_released: Seats
    seats_remaining: SeatsLeft | None = None
    revision: Revision | None = None
    payment_id: Identifier | None = None
    amount: Amount | None = None
    currency: Currency | None = None
    user_email: Address | None = None
    tour_name: TourName | None = None
    locale: Locale | None = None

    @property
    def aggregate_id(self) -> str:
        return self.booking_id


class BookingChanged(Payload, frozen=True, kw_only=True):
    """A booking has another number of seats from now on; the greatest revision is the newest."""

    named_by = "bookingId"
    notes = {
        "booking_id": Note("the booking", "BK-1"),
        "tour_id": Note("its tour", 42),
        "seats": Note("the new total, not the difference", 3),
        "revision": Note(
            "grows with each step of the booking's life: the greatest is the newest", 6
        ),
    }

    booking_id: Identifier
    tour_id: TourId
    seats: Seats
    revision: Revision

    @property
    def aggregate_id(self) -> str:
        return self.booking_id
