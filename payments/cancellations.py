"""What a cancelled booking asks of the refunds."""

from collections.abc import Sequence
from typing import NamedTuple

from django.db import models, transaction
from django.utils import timezone

from booking_platform.messaging import leases
from booking_platform.messaging.consumers import Refused
from booking_platform.messaging.envelope import Event
from booking_platform.messaging.events import BookingCancelled
from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from booking_platform.messaging.rows import insert_missing
from booking_platform.messaging.topology import CANCELLED_FOR_PAYMENTS
from booking_platform.money import UnusableAmount, format_money, minor_units
from payments import attempts
from payments.models import IdempotencyStore, idempotency_key, refund_request


class Outcome(models.TextChoices):
    REQUESTED = "refund_requested", "the booking's payment is to be refunded"
    KNOWN = "refund_known", "said again what was known of the booking's refund"
    NOTHING = "nothing_to_refund", "named neither a payment nor an amount"


class Wish(NamedTuple):
    """What a cancellation wants refunded."""

    payment_id: str
    amount_minor: int
    currency: str

    def __str__(self) -> str:
        if not self.payment_id:
            return "nothing"
        return f"{format_money(self.amount_minor, self.currency)} of payment {self.payment_id!r}"


NOTHING = Wish("", 0, "")


def wish(payload: BookingCancelled) -> Wish | Refused:
    """Read what a cancellation wants refunded, exactly, or say what is wrong with it."""
    payment, amount = payload.payment_id, payload.amount
    if amount is not None and amount < 0:
        return _invalid(f"payload.amount is {amount}: it must not be negative")
    if not amount and (amount == 0 or not payment):
        return NOTHING
    if amount is None:
        # Stripe would refund all of it.
        return _invalid(f"payload.amount is missing, but payload.paymentId is {payment!r}")
    if not payment:
        return _invalid(f"payload.paymentId is missing, but payload.amount is {amount}")
    currency = (payload.currency or "").lower()
    try:
        return Wish(payment, minor_units(amount, currency), currency)
    except UnusableAmount as error:
        return _invalid(str(error))


def request_refunds(events: Sequence[Event]) -> list[str | Refused]:
    """Record what is to be refunded, in the caller's transaction; attempt it once that is over.

    A booking has one refund, whichever event asks for it. An event that asks for another than an
    earlier one did is refused: a person decides which of them is right.
    """
    return [_request(event) for event in events]


def _request(event: Event) -> str | Refused:
    payload: BookingCancelled = event.payload
    booking, wanted = payload.booking_id, wish(payload)
    if isinstance(wanted, Refused):
        return wanted
    if wanted != NOTHING and not _asked_for_nothing(booking):
        refund = _insert(booking, wanted)
        if refund is not None:
            # No partial: Django asks what is robust for its name.
            transaction.on_commit(lambda: attempts.carry_on(refund), robust=True)
            return Outcome.REQUESTED
    earlier = _earlier(booking)
    if earlier is None:
        return Outcome.NOTHING
    if earlier == wanted:
        return Outcome.KNOWN
    detail = f"booking {booking!r} was to refund {earlier}; now it is {wanted}"
    return Refused(DeadLetter.Reason.DIFFERS, detail)


def _earlier(booking: str) -> Wish | None:
    """Give what an earlier cancellation of the booking wanted."""
    for refund in IdempotencyStore.objects.filter(booking_id=booking):
        return Wish(refund.payment_id, refund.amount_minor, refund.currency)
    return NOTHING if _asked_for_nothing(booking) else None


def _asked_for_nothing(booking: str) -> bool:
    events = ProcessedEvent.objects.filter(aggregate_id=booking, outcome=Outcome.NOTHING)
    return events.filter(consumer=CANCELLED_FOR_PAYMENTS.name).exists()


def _insert(booking: str, wanted: Wish) -> IdempotencyStore | None:
    """Store a booking's refund, under the lease of this worker; None if it has one already."""
    key = idempotency_key(booking)
    columns = {
        **wanted._asdict(),
        **leases.new_lease(),
        "booking_id": booking,
        "idempotency_key": key,
        "request_payload": refund_request(booking, wanted.payment_id, wanted.amount_minor, key),
        "status": IdempotencyStore.Status.IN_PROGRESS,
        "attempts": 1,
        "created_at": timezone.now(),
        "updated_at": timezone.now(),
    }
    inserted = insert_missing(IdempotencyStore, tuple(columns), [tuple(columns.values())], key="id")
    return IdempotencyStore(pk=inserted.pop(), **columns) if inserted else None


def _invalid(detail: str) -> Refused:
    return Refused(DeadLetter.Reason.INVALID, detail)
