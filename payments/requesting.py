"""Refunds as events ask for them: stored in the event's transaction, attempted after the commit."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from django.db import models

from booking_platform.contract.envelope import Event
from booking_platform.messaging import clock, leases
from booking_platform.messaging.claims import told_before
from booking_platform.messaging.models import ProcessedEvent
from booking_platform.messaging.rows import insert_missing, one_at_a_time
from booking_platform.messaging.rules import AMBIGUOUS, DIFFERS, Applied, LostRace, Refused, Result
from payments import announcing, attempts, wishes
from payments.keys import idempotency_key
from payments.models import WHOLE_BOOKING, NothingToRefund, Refund
from payments.wishes import NOTHING, Step, Wish


class Outcome(models.TextChoices):
    REQUESTED = "refund_requested", "the booking's payment is to be refunded"
    KNOWN = "refund_known", "said again what was known of the booking's refund"
    NOTHING = "nothing_to_refund", "named neither a payment nor an amount"


def request(events: Sequence[Event]) -> list[Result]:
    """Store what is to be refunded, in the transaction of the caller; attempt it after the commit.

    Each payment is refunded once for each step of a booking's life, whichever event asks for it.
    What asks for something else than an earlier event, or may be a repeat or not, is refused: a person
    decides.
    """
    return [_request(event) for event in events]


def _request(event: Event) -> Result:
    wanted = wishes.asked_for(event.payload)
    if isinstance(wanted, Refused):
        return wanted
    booking, step = event.payload.booking_id, wishes.step_of(event.payload)
    one_at_a_time(f"refunds of {booking}")
    refunds = list(Refund.objects.filter(booking_id=booking))
    if known := _known(event, step, wanted, refunds):
        return known
    if wanted == NOTHING:
        return _remember_nothing(event, step)
    further = any(each.payment_id != wanted.payment_id for each in refunds)
    return _insert(event, step, wanted, further=further)


def _known(event: Event, step: Step, wanted: Wish, refunds: Sequence[Refund]) -> Result | None:
    """Return what becomes of an event by what earlier ones have asked for; none where it is new."""
    booking = event.payload.booking_id
    for_step = [each for each in refunds if each.seats_remaining == step.seats_remaining]
    nothing = _nothing_asked(booking, step)
    if wanted == NOTHING:
        if for_step:
            return _differs(booking, wanted, for_step[0])
        return Applied(Outcome.KNOWN) if nothing else None
    if nothing:
        return _differs(booking, wanted, None)
    for each in for_step:
        if each.payment_id == wanted.payment_id:
            return _again(event, step, wanted, each)
    # A worker of the version before has taken each step for one of the whole booking.
    repeated = bool(refunds) and told_before(event, Outcome.values)
    return Applied(Outcome.KNOWN) if repeated else None


def _nothing_asked(booking: str, step: Step) -> bool:
    """Return whether an earlier event asked for nothing for this step."""
    rows = NothingToRefund.objects.filter(booking_id=booking)
    steps = set(rows.values_list("seats_remaining", flat=True))
    if steps or step.seats_remaining != WHOLE_BOOKING:
        return step.seats_remaining in steps
    # A worker of an old version, still there during a deployment, has remembered only this.
    events = ProcessedEvent.objects.filter(aggregate_id=booking, outcome=Outcome.NOTHING)
    return events.exists()


def _again(event: Event, step: Step, wanted: Wish, earlier: Refund) -> Result:
    """Return what becomes of an event about a refund that is stored already."""
    booking = event.payload.booking_id
    if not wanted.is_that_of(earlier):
        return _differs(booking, wanted, earlier)
    if step.is_surely(earlier) or told_before(event, Outcome.values):
        return Applied(Outcome.KNOWN)
    why = "without payload.seatsRemaining"
    if step.named and earlier.step_named:
        revisions = (earlier.revision, step.revision)
        before, now = ("none" if each is None else str(each) for each in revisions)
        why = f"its revision is {before}, and now {now}:"
    return _ambiguous(booking, wanted, why)


def _ambiguous(booking: str, wanted: Wish, why: str) -> Refused:
    return Refused(
        AMBIGUOUS,
        f"booking {booking!r} has a refund of {wanted} already: {why} this may be a repeat or a further "
        "step",
    )


def _differs(booking: str, wanted: Wish, earlier: Refund | None) -> Refused:
    was = f"{earlier.amount} of payment {earlier.payment_id!r}" if earlier else "nothing"
    return Refused(DIFFERS, f"booking {booking!r} was to refund {was}; now it is {wanted}")


def _remember_nothing(event: Event, step: Step) -> Applied:
    """Store that there is nothing to be refunded for a step."""
    row = {
        "booking_id": event.payload.booking_id,
        "seats_remaining": step.seats_remaining,
        "step_named": step.named,
        "event_id": event.event_id,
        "created_at": clock.now(),
    }
    if not insert_missing(NothingToRefund, [row], key="id"):
        raise _overtaken(event)
    return Applied(Outcome.NOTHING)


def _insert(event: Event, step: Step, wanted: Wish, *, further: bool) -> Applied:
    """Store a refund, under the lease of this worker."""
    booking, now = event.payload.booking_id, clock.now()
    columns: dict[str, Any] = {
        **leases.new_lease(),
        "announced": 1,
        "event_id": event.event_id,
        "booking_id": booking,
        "payment_id": wanted.payment_id,
        "seats_remaining": step.seats_remaining,
        "step_named": step.named,
        "revision": step.revision,
        "further_payment": further,
        "amount_asked": wanted.amount,
        "amount_minor": wanted.amount_minor,
        "currency": wanted.currency,
        "idempotency_key": idempotency_key(booking, wanted.payment_id, step.seats_remaining),
        "request_payload": {},
        "status": Refund.Status.IN_PROGRESS,
        "cancelled_at": event.occurred_at,
        "trace": event.traceparent,
        "created_at": now,
        "updated_at": now,
    }
    inserted = insert_missing(Refund, [columns], key="id")
    if not inserted:
        raise _overtaken(event)
    refund = Refund(pk=inserted.pop(), **columns)
    return Applied(
        Outcome.REQUESTED,
        then=partial(leases.carry_on, refund, attempts.attempt),
        announces=announcing.of_new(refund.facts(), now),
    )


def _overtaken(event: Event) -> LostRace:
    """Return that a worker of the version before, which does not wait here, was faster."""
    return LostRace("refund", booking_id=event.payload.booking_id)
