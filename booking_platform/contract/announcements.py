"""The announcements of the platform's apps, field by field: what became of bookings, money and mails.

``caused_by`` is the id of the event that made it happen, or that asked for it at first.
"""

from decimal import Decimal
from typing import Annotated, Literal

from msgspec import Meta

from booking_platform.contract.announcing import Announcement, Reason
from booking_platform.contract.events import Currency, Revision, SeatsLeft, TourId
from booking_platform.contract.payloads import Identifier, Note

Number = Annotated[int, Meta(ge=0, le=2**63 - 1, description="a JSON integer, 0 or more")]
Balance = Annotated[
    int, Meta(ge=-(2**63), le=2**63 - 1, description="a JSON integer, also below 0")
]
Version = Annotated[
    int,
    Meta(
        ge=1,
        le=2**63 - 1,
        description="a JSON integer: the number of this announcement about the same thing",
        examples=[2],
    ),
]
RefundStatus = Annotated[
    Literal["in_progress", "completed", "failed"],
    Meta(description="in_progress, completed or failed"),
]
Sum = Annotated[Decimal, Meta(description="a number in major units", examples=["80.00"])]


class SeatsAnnouncement(Announcement, frozen=True, kw_only=True, omit_defaults=True):
    """What became of the seats of one booking. ``seats_held`` is what it holds from now on.

    A booking that was created without an id has none here.
    """

    named_by = "bookingId"
    notes = {
        "booking_id": Note("the booking", "BK-1"),
        "tour_id": Note("its tour", 42),
        "seats": Note("how many seats were asked for", 2),
        "seats_held": Note("how many seats the booking holds from now on", 2),
        "reason": Note("why, where that is not plain: a word of the list below"),
        "caused_by": Note(
            "the `eventId` of the event that made it happen", "7c1f0c3e-2b7d-4c55-9d3c-6f0f4d1f2a10"
        ),
    }

    booking_id: Identifier | None = None
    tour_id: TourId
    seats: Number
    seats_held: Number
    reason: Reason | None = None
    caused_by: Identifier

    @property
    def aggregate_id(self) -> str:
        return self.booking_id or ""


class SeatsReserved(SeatsAnnouncement, frozen=True, kw_only=True, omit_defaults=True):
    """A booking has its seats; ``seats`` is what it asked for."""

    routing_key = "seats.reserved"


class SeatsRejected(SeatsAnnouncement, frozen=True, kw_only=True, omit_defaults=True):
    """A booking, or a change of one, found too few seats: nothing has changed for it.

    ``seats`` is what was asked for, ``available`` what the tour had left.
    """

    routing_key = "seats.rejected"
    notes = {
        "seats_held": Note("how many seats the booking holds from now on", 0),
        "available": Note("how many seats the tour has left", 1),
        "reason": Note(
            "why, where that is not plain: a word of the list below", "not_enough_seats"
        ),
    }

    available: Number


class SeatsReleased(SeatsAnnouncement, frozen=True, kw_only=True, omit_defaults=True):
    """A booking was cancelled, or a part of it; ``seats`` is what it gave back, which may be none."""

    routing_key = "seats.released"
    notes = {
        "seats": Note("how many seats were given back", 1),
        "seats_held": Note("how many seats the booking holds from now on", 1),
    }


class SeatsChanged(SeatsAnnouncement, frozen=True, kw_only=True, omit_defaults=True):
    """A booking has another number of seats; ``seats`` is what was asked for."""

    routing_key = "seats.changed"
    notes = {
        "seats": Note("how many seats were asked for", 3),
        "seats_held": Note("how many seats the booking holds from now on", 3),
        "seats_before": Note("how many seats it held before", 2),
    }

    seats_before: Number


class TourAvailabilityChanged(Announcement, frozen=True, kw_only=True, omit_defaults=True):
    """The numbers of a tour, once for many bookings. The greatest ``version`` is the newest.

    ``reserved`` are the seats that bookings hold; ``unledgered`` those sold in another way, less those
    cancelled for bookings that are not known yet.
    """

    routing_key = "tour.availability-changed"
    named_by = "tourId"
    notes = {
        "tour_id": Note("the tour", 42),
        "capacity": Note("how many seats there are", 20),
        "available": Note("how many seats can still be sold", 8),
        "reserved": Note("how many seats bookings hold", 10),
        "unledgered": Note(
            "how many seats were sold in another way, less those cancelled for bookings that are "
            "not known yet",
            2,
        ),
        "overbooked": Note("how many seats are sold beyond the capacity", 0),
        "version": Note("grows with each change of the tour: the greatest is the newest", 17),
    }

    tour_id: TourId
    capacity: Number
    available: Number
    reserved: Number
    unledgered: Balance
    overbooked: Number
    version: Number

    @property
    def aggregate_id(self) -> str:
        return str(self.tour_id)


class RefundAnnouncement(Announcement, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one refund of a booking's payment, for one step of its life.

    Booking, payment and ``seats_remaining``, the step (0: the whole booking was cancelled), name the
    refund. Of its announcements the one with the greatest ``version`` is the newest, and says all that
    is true now. The amount has no currency while none is known. ``refund_id`` is Stripe's. ``status`` is
    ``completed`` once Stripe has the refund, and stays so if the bank sends it back. ``caused_by`` is the
    event that asked for the refund, missing where the platform does not remember it.
    """

    named_by = "bookingId"
    notes = {
        "booking_id": Note("the booking", "BK-1"),
        "payment_id": Note("Stripe's payment intent, or its charge", "pi_3Pk8Yw2eZvKYlo2C"),
        "seats_remaining": Note("the step: how many seats the booking keeps; 0: none", 1),
        "revision": Note("of the booking, where the event named it", 7),
        "amount": Note("of the refund, in major units", Decimal("80.00")),
        "currency": Note("of the amount; left out while it is not known", "eur"),
        "refund_id": Note("Stripe's id of the refund, as soon as there is one"),
        "status": Note("what is known of the request to Stripe", "in_progress"),
        "reason": Note("why, where that is not plain: a word of the list below"),
        "version": Note(
            "grows with each announcement of this refund: the greatest is the newest", 2
        ),
        "caused_by": Note("the `eventId` of the event that asked for the refund"),
    }

    booking_id: Identifier
    payment_id: Identifier
    seats_remaining: SeatsLeft
    revision: Revision | None = None
    amount: Sum
    currency: Currency | None = None
    refund_id: Identifier | None = None
    status: RefundStatus
    reason: Reason | None = None
    version: Version
    caused_by: Identifier | None = None

    @property
    def aggregate_id(self) -> str:
        return self.booking_id


class RefundRequested(RefundAnnouncement, frozen=True, kw_only=True, omit_defaults=True):
    """A refund is on its way: asked for by an event, or taken up again by a person."""

    routing_key = "refund.requested"


class RefundCompleted(RefundAnnouncement, frozen=True, kw_only=True, omit_defaults=True):
    """Stripe has the refund, and nobody need do anything.

    Whether it is with the customer already or still on its way is not told, nor that it has arrived: a
    listener may act on this once. If the bank sends it back, ``RefundFailed`` follows.
    """

    routing_key = "refund.completed"
    notes = {
        "refund_id": Note(
            "Stripe's id of the refund, as soon as there is one", "re_3Pk8Yw2eZvKYlo2C1a2b"
        ),
        "status": Note("what is known of the request to Stripe", "completed"),
    }


class RefundFailed(RefundAnnouncement, frozen=True, kw_only=True, omit_defaults=True):
    """The customer gets no money by this refund; a person is asked what to do.

    It can't be made (``status`` is ``failed``), or Stripe had it and the money came back (``completed``).
    """

    routing_key = "refund.failed"
    notes = {
        "status": Note("what is known of the request to Stripe", "failed"),
        "reason": Note("why, where that is not plain: a word of the list below", "refused"),
    }


class RefundNeedsReview(RefundAnnouncement, frozen=True, kw_only=True, omit_defaults=True):
    """The refund waits for a person, who decides whether it is made, or what is true of it."""

    routing_key = "refund.needs-review"
    notes = {
        "reason": Note("why, where that is not plain: a word of the list below", "not_covered")
    }


class RefundSettled(RefundAnnouncement, frozen=True, kw_only=True, omit_defaults=True):
    """A person has closed the matter of a refund: the platform sends nothing for it any more.

    The person has paid in another way, or decided that nothing is to be paid. ``status`` is what it was.
    """

    routing_key = "refund.settled"


class EmailAnnouncement(Announcement, frozen=True, kw_only=True, omit_defaults=True):
    """What became of the e-mail about one step of a booking's cancellation. No address is told.

    Booking and ``seats_remaining``, the step, name the e-mail. Of its announcements the one with the
    greatest ``version`` is the newest. ``caused_by`` is the event that asked for the e-mail, missing
    where the platform does not remember it.
    """

    named_by = "bookingId"
    notes = {
        "booking_id": Note("the booking", "BK-1"),
        "seats_remaining": Note("the step: how many seats the booking keeps; 0: none", 1),
        "revision": Note("of the booking, where the event named it", 7),
        "reason": Note("why, where that is not plain: a word of the list below"),
        "version": Note(
            "grows with each announcement of this e-mail: the greatest is the newest", 1
        ),
        "caused_by": Note("the `eventId` of the event that asked for the e-mail"),
    }

    booking_id: Identifier
    seats_remaining: SeatsLeft
    revision: Revision | None = None
    reason: Reason | None = None
    version: Version
    caused_by: Identifier | None = None

    @property
    def aggregate_id(self) -> str:
        return self.booking_id


class CancellationEmailSent(EmailAnnouncement, frozen=True, kw_only=True, omit_defaults=True):
    """The customer's mail server, or one on the way to it, has the e-mail."""

    routing_key = "email.sent"


class CancellationEmailFailed(EmailAnnouncement, frozen=True, kw_only=True, omit_defaults=True):
    """The e-mail could not be sent: it waits for a person."""

    routing_key = "email.failed"


class CancellationEmailUncertain(EmailAnnouncement, frozen=True, kw_only=True, omit_defaults=True):
    """Nobody knows whether the e-mail was sent: it waits for a person, and is not sent again."""

    routing_key = "email.uncertain"


class CancellationEmailSettled(EmailAnnouncement, frozen=True, kw_only=True, omit_defaults=True):
    """A person has closed the matter of an e-mail."""

    routing_key = "email.settled"
