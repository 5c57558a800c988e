"""What the store says of refunds, held against what Stripe says.

Stripe is always asked first and the store read afterwards, since the store learns everything from
Stripe. What a worker has in hand is left to it: the next comparison sees what came of it. Nothing
here sends a refund.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, StrEnum, auto
from operator import attrgetter
from typing import Any

from django.conf import settings
from django.db.models import Q

from booking_platform.messaging import clock, leases
from booking_platform.messaging.paging import in_pages
from booking_platform.money import format_money
from payments import stripe_gateway
from payments.answers import StripeRefund, Unknown
from payments.examining import is_ours
from payments.keys import NAMESPACE, booking_key, booking_of, without_issue
from payments.models import Refund

CHUNK = 500  # refunds a query
ROWS = Refund.objects.defer("request_payload", "response_payload", "settlement")


class CouldNotCompare(Exception):
    """Stripe did not say what it has, so that nothing is known of differences."""


class Kind(StrEnum):
    MISSING = "missing"
    EXTRA = "extra"
    AMOUNT = "other amount"
    PAYMENT = "other payment"
    STATUS = "other status"


class Mending(Enum):
    """Who can put a difference right."""

    ATTEMPT = auto()  # a leased attempt, which asks Stripe for the refund that the store names
    LOOK = auto()  # the same, kept from sending by a review: Stripe already has the refund
    PERSON = auto()  # an attempt would not even see it


@dataclass(frozen=True)
class Difference:
    """One thing in which the store and Stripe differ, in words for the back office."""

    kind: Kind
    words: str  # in one line, with nothing in it that a terminal would obey
    row: Refund | None  # none: the store has nothing that belongs to it
    mending: Mending

    def __str__(self) -> str:
        return f"{self.kind}: {self.words}"


@dataclass(frozen=True)
class UnderWay:
    """A refund that a worker has, or is about to take up: too early to compare."""

    row: Refund


Finding = Difference | UnderWay


class Related:
    """Rows by all that may tie a refund at Stripe to them."""

    def __init__(self, rows: Iterable[Refund]) -> None:
        self._rows: dict[str, set[Refund]] = defaultdict(set)
        for row in rows:
            ties = (row.stripe_refund_id, booking_key(row.booking_id), row.payment_id)
            for tie in filter(None, ties):
                self._rows[tie].add(row)

    def to(self, one: StripeRefund) -> list[Refund]:
        """Return the rows that may have to do with a refund, oldest first."""
        ties = (one.refund_id, booking_of(one.key), one.payment_id, one.charge_id)
        rows = set().union(*(self._rows.get(tie, ()) for tie in ties))
        return sorted(rows, key=attrgetter("pk"))


def findings(since: datetime) -> Iterator[Finding]:
    """Compare all that was made since a moment, at Stripe or in the store.

    A refund that Stripe lists is looked up whatever the age of its row, and one of a row since then
    is asked for by its id where Stripe does not list it.

    Raises:
        CouldNotCompare: Stripe could not be asked; what was given before is true nevertheless.
        django.db.Error: the database could not be.
    """
    asked = clock.now()
    listed = stripe_gateway.since(since)
    if not isinstance(listed, list):
        why = listed.why if isinstance(listed, Unknown) else listed.message
        raise CouldNotCompare(f"Stripe did not list its refunds: {why}")
    for start in range(0, len(listed), CHUNK):
        yield from _listed(listed[start : start + CHUNK], asked)
    ids = {one.refund_id for one in listed}
    made = Refund.objects.filter(created_at__gte=since, stripe_refund_id__isnull=False)
    for pk, refund_id in in_pages(made.values_list("pk", "stripe_refund_id"), CHUNK):
        if refund_id and refund_id not in ids:
            yield from _asked_singly(pk, refund_id)


def compare(one: StripeRefund, rows: Sequence[Refund], now: datetime) -> list[Finding]:
    """Compare a refund at Stripe with the rows that may have to do with it."""
    for row in rows:
        if row.stripe_refund_id == one.refund_id:
            return [UnderWay(row)] if under_way(row, now) else [*_contents(row, one)]
    for row in rows:
        if is_ours(row, one):
            early = under_way(row, now) and not _unsent(row, now)
            return [UnderWay(row)] if early else [_not_recorded(row, one)]
    of_payment = [row for row in rows if one.is_of(row.payment_id)]
    return _stray(one, of_payment or [row for row in rows if _same_booking(row, one)], now)


def under_way(row: Refund, now: datetime) -> bool:
    """Return whether a worker has the row, or takes it up by itself within the longest pause."""
    soon = now + timedelta(seconds=settings.RETRY_MAX_SECONDS)
    due = row.next_attempt_at is not None and row.next_attempt_at <= soon
    return row.lease_until is not None or due


def printable(text: str) -> str:
    """Escape what a terminal would obey or not show: anybody may have written it."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def missing(row: Refund, why: str) -> Difference:
    """Return the difference for a refund that the store names and Stripe does not have."""
    words = (
        f"booking {row.booking_id!r}: by the store, {row.amount} of payment {row.payment_id!r} were "
        f"refunded as {row.stripe_refund_id}, but Stripe does not have that refund: {why}"
    )
    return Difference(Kind.MISSING, printable(words), row, Mending.ATTEMPT)


def mend(differences: Iterable[Difference]) -> tuple[int, int]:
    """Schedule what puts differences right: attempts that ask Stripe, or a person's review.

    Return how many refunds were marked due, and how many were put up for a person. One that changed
    meanwhile is left to the next comparison. What a person settled stays so: an attempt may look at
    it, and itself decides whether there is news.
    """
    by_row: dict[Refund, list[Difference]] = defaultdict(list)
    for difference in differences:
        if difference.row:
            by_row[difference.row].append(difference)
    due = for_a_person = 0
    to_mark: list[int] = []
    for row, its in by_row.items():
        mendings = {difference.mending for difference in its}
        if Mending.LOOK in mendings:
            due += _put_up(row, its, next_attempt_at=clock.now())
        elif Mending.PERSON in mendings and not row.settled:
            for_a_person += _put_up(row, its)
        elif Mending.ATTEMPT in mendings:
            to_mark.append(row.pk)
    for start in range(0, len(to_mark), CHUNK):
        pks = to_mark[start : start + CHUNK]
        due += leases.mark_due(Refund.objects.filter(pk__in=pks))
    return due, for_a_person


def _put_up(row: Refund, its: Sequence[Difference], **columns: Any) -> int:
    """Schedule a row for a person, with what was found here; return how many: 1 or 0."""
    said = [row.last_error] if row.needs_review and row.last_error else []
    news = [each.words for each in its if not any(each.words in error for error in said)]
    if not news and not columns:
        return 1  # it waits for a person already, for this
    unchanged = Refund.objects.filter(pk=row.pk, updated_at=row.updated_at, status=row.status)
    columns |= {
        "needs_review": True,
        "review_code": "",
        "last_error": "; ".join([*(f"reconciliation: {words}" for words in news), *said]),
    }
    return int(leases.store(leases.at_rest(unchanged), columns))


def _listed(chunk: list[StripeRefund], asked: datetime) -> Iterator[Finding]:
    related = Related(ROWS.filter(_ties(chunk)))
    now = clock.now()
    for one in chunk:
        rows = related.to(one)
        found = compare(one, rows, now)
        its = next((row for row in rows if row.stripe_refund_id == one.refund_id), None)
        newer = its and its.updated_at >= asked  # than the list, and may know more
        yield from _asked_singly(its.pk, one.refund_id) if its and newer and found else found


def _asked_singly(pk: int, refund_id: str) -> list[Finding]:
    asked = clock.now()
    answer = stripe_gateway.fetch(refund_id)
    if isinstance(answer, Unknown):
        raise CouldNotCompare(f"Stripe did not say what it has as {refund_id}: {answer.why}")
    row = ROWS.get(pk=pk)
    changed = row.updated_at >= asked or row.stripe_refund_id != refund_id
    if changed or under_way(row, clock.now()):
        return [UnderWay(row)]
    if isinstance(answer, StripeRefund):
        return [*_contents(row, answer)]
    return [missing(row, answer.message)]


def _ties(chunk: list[StripeRefund]) -> Q:
    # Only what a key of ours can look like: metadata may hold what no database takes.
    ours = [one for one in chunk if without_issue(one.key)]
    noted = {(one.record.get("metadata") or {}).get("booking_id") for one in ours}
    payments = {each for one in chunk for each in (one.payment_id, one.charge_id)}
    return (
        Q(stripe_refund_id__in={one.refund_id for one in chunk})
        | Q(idempotency_key__in={key for one in ours for key in (one.key, without_issue(one.key))})
        | Q(booking_id__in=noted - {"", None})
        | Q(payment_id__in=payments - {""})
    )


def _same_booking(row: Refund, one: StripeRefund) -> bool:
    return booking_of(one.key) == booking_key(row.booking_id)


def _contents(row: Refund, one: StripeRefund) -> Iterator[Difference]:
    """Compare a row with the refund that it names."""
    paid = format_money(one.amount_minor, one.currency)
    payment = row.payment_id if one.is_of(row.payment_id) else one.payment_id
    sides = (
        (Kind.AMOUNT, paid, row.amount),
        (Kind.PAYMENT, f"of payment {payment!r}", f"of payment {row.payment_id!r}"),
        (Kind.STATUS, one.status, row.stripe_status or "of no status"),
    )
    for kind, there, here in sides:
        if there != here:
            words = (
                f"booking {row.booking_id!r}: refund {one.refund_id} ({paid} of payment "
                f"{row.payment_id!r}) is {there} at Stripe, {here} in the store"
            )
            yield Difference(kind, printable(words), row, Mending.ATTEMPT)


def _not_recorded(row: Refund, one: StripeRefund) -> Difference:
    """Return the difference for a refund at Stripe that the row of its booking does not name."""
    known = f"says that its refund of {row.amount} is {row.status.replace('_', ' ')}"
    mending = Mending.ATTEMPT if row.settled else Mending.LOOK  # no attempt sends what is settled
    if row.stripe_refund_id:
        known = f"knows {row.stripe_refund_id} for it"
    if row.stripe_refund_id or not one.is_of(row.payment_id):
        mending = Mending.PERSON
    words = f"booking {row.booking_id!r}: {_at_stripe(one)}, but the store {known}{_settled(row)}"
    return Difference(Kind.EXTRA, printable(words), row, mending)


def _stray(one: StripeRefund, of_payment: Sequence[Refund], now: datetime) -> list[Finding]:
    """Return what is to be said of a refund at Stripe that belongs to no row."""
    at_rest = [row for row in of_payment if not under_way(row, now)]
    row = min(at_rest, key=lambda row: row.settled, default=None)  # the oldest still open
    if one.key.startswith(NAMESPACE):
        booking = (one.record.get("metadata") or {}).get("booking_id")
        words = f"booking {booking!r}: {_at_stripe(one)}, but the store has no such refund"
        return [Difference(Kind.EXTRA, printable(words), row, Mending.PERSON)]
    if row:
        words = (
            f"booking {row.booking_id!r}: {_at_stripe(one)}, which this platform did not ask for; "
            f"its own refund of {row.amount} is {row.stripe_refund_id or row.status}{_settled(row)}"
        )
        return [Difference(Kind.EXTRA, printable(words), row, Mending.PERSON)]
    return [UnderWay(of_payment[0])] if of_payment else []


def _at_stripe(one: StripeRefund) -> str:
    paid = format_money(one.amount_minor, one.currency)
    return f"Stripe has {one.refund_id}, {paid} of payment {one.payment_id!r}, {one.status}"


def _settled(row: Refund) -> str:
    return f" (settled by {row.settled_by!r})" if row.settled else ""


def _unsent(row: Refund, now: datetime) -> bool:
    """Return whether, by the store, no worker has ever sent the request, and none just does.

    Where Stripe has its refund nevertheless, the store is older than that, as after a restore. To
    leave it to the next attempt would be dangerous: that one would send.
    """
    return row.first_sent_at is None and (row.lease_until is None or row.lease_until <= now)
