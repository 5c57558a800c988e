"""What the payments know of a booking: its refunds, each attempt at them, and what people decided."""

from collections.abc import Iterator

from django.db.models import Q

from booking_platform.contract.announcements import RefundRequested
from booking_platform.messaging import clock
from booking_platform.operations.booking_letters import missing
from booking_platform.operations.leased import next_attempt
from booking_platform.operations.leased_story import leased_chapter, step
from booking_platform.operations.records import exact, visible
from booking_platform.operations.stories import (
    MOST,
    Asked,
    Chapter,
    Decision,
    Entry,
    Kind,
    Level,
    Link,
    Meaning,
    Point,
    named,
    resolves,
    tells,
)
from payments.attempts import AS_BEFORE, COMPLETED
from payments.audits import QUEUE
from payments.decisions import advice_for, meaning_of
from payments.models import NothingToRefund, Refund

SEE = "payments.view_refund"
STANDS = "Refund"

AT_STRIPE = {"succeeded": "Stripe says that it succeeded", "pending": "it is on its way"}


@tells("refunds", SEE)
def refunds(asked: Asked) -> Chapter:
    """Return the refunds of a booking, and the cancellations that asked for none."""
    found = list(Refund.objects.filter(booking_id=asked.booking).order_by()[: MOST + 1])
    chapter = leased_chapter(
        asked, found, Kind.REFUND, calm=(COMPLETED, AS_BEFORE), waits=lambda row: row.needs_review
    )
    for refund in found[:MOST]:
        chapter.entries += _asked_for(refund, asked)
        chapter.decisions += _approved(refund)
        chapter.points.append(_stands(refund))
    nothing = NothingToRefund.objects.filter(booking_id=asked.booking).order_by()[:MOST]
    for each in nothing:
        chapter.entries.append(_nothing(each))
    if nothing and not chapter.points:
        chapter.points.append(Point(STANDS, "A cancellation named no payment to refund."))
    chapter.points += missing(asked, QUEUE, about=STANDS, stored=bool(chapter.points))
    return chapter


def _asked_for(refund: Refund, asked: Asked) -> Iterator[Entry]:
    what = f"A refund of {refund.amount} was asked for, {_step(refund)}: payment {exact(refund.payment_id)}."
    detail = (f"By event {exact(refund.event_id)}",) if refund.event_id else ()
    yield Entry(refund.created_at, Kind.REFUND, what, detail=detail, links=_link(refund))
    if refund.announced:
        yield asked.announcement(refund.created_at, RefundRequested.routing_key)


def _approved(refund: Refund) -> Iterator[Decision]:
    if refund.approved_at is not None:
        who, why = visible(refund.approved_by), visible(refund.approval)
        what = f"{who} approved {named(refund)} in spite of what stood against it: {why}"
        entry = Entry(refund.approved_at, Kind.STAFF, what, links=_link(refund))
        yield Decision(refund, refund.approved_by, entry)


def _nothing(nothing: NothingToRefund) -> Entry:
    part = step(nothing.seats_remaining)
    what = f"A cancellation asked for no refund, {part}: it named no payment and no amount."
    return Entry(nothing.created_at, Kind.REFUND, what)


def _stands(refund: Refund) -> Point:
    """Return how a refund stands, and why the money is not with the customer where it is not."""
    amount, links, why = f"{refund.amount}, {_step(refund)}", _link(refund), _why(refund)
    if refund.needs_review:
        stands = "refunded, but it needs a look" if refund.stripe_refund_id else "NOT refunded"
        return Point(STANDS, f"{amount}: {stands}: {why}", Level.PERSON, _then(refund), links)
    if refund.settled:
        who = f"{visible(refund.settled_by)} closed it: {visible(refund.settlement)}"
        return Point(STANDS, f"{amount}: {who}", links=links)
    if refund.status == Refund.Status.COMPLETED:
        at_stripe = AT_STRIPE.get(refund.stripe_status) or visible(refund.stripe_status)
        return Point(STANDS, f"{amount}: refunded ({at_stripe}).", links=links)
    following = next_attempt(refund, clock.now())
    if not following:
        then = "Open the refund, and have it tried now."
        what = f"{amount}: NOT refunded, and nothing more happens by itself: {why}"
        return Point(STANDS, what, Level.PERSON, then, links)
    level = Level.ATTENTION if refund.last_error else Level.NORMAL
    return Point(STANDS, f"{amount}: not refunded yet, {following}: {why}", level, links=links)


def _why(refund: Refund) -> str:
    known = meaning_of(refund.review_code) if refund.review_code else ""
    said = visible(refund.last_error)
    return "; ".join(filter(None, (known, said))) or "nothing has gone wrong so far"


def _then(refund: Refund) -> str:
    """Return what a person can do about a refund that waits."""
    return f"{advice_for(refund)} The buttons are on the page of the refund."


def _step(refund: Refund) -> str:
    return step(refund.seats_remaining)


def _link(refund: Refund) -> tuple[Link, ...]:
    return (Link(refund, named(refund)),)


@resolves("a payment id", "a refund id of Stripe", "an idempotency key", permission=SEE)
def from_refunds(term: str) -> Iterator[Meaning]:
    """Yield the bookings that have a refund of this booking, event, payment, refund or key."""
    whys = {
        "booking_id": "a refund names the booking of this id",
        "payment_id": "this payment was to be refunded for it",
        "stripe_refund_id": "this is its refund at Stripe",
        "idempotency_key": "this is the key of its refund",
        "event_id": "this event asked for its refund",
    }
    either = Q(*((column, term) for column in whys), _connector=Q.OR)
    for refund in Refund.objects.filter(either).order_by().only(*whys)[:MOST]:
        for column, why in whys.items():
            if getattr(refund, column) == term:
                yield Meaning(refund.booking_id, why)
    if NothingToRefund.objects.filter(booking_id=term).exists():
        yield Meaning(term, "a cancellation of the booking of this id asked for no refund")
