from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from factory.declarations import LazyAttribute, Sequence
from factory.django import DjangoModelFactory

from booking_platform.messaging import clock
from catalog.models import Tour
from notifications.models import CancellationEmail
from payments.examining import Terms, frozen
from payments.keys import idempotency_key
from payments.models import Refund


def numbered(text: str) -> Any:
    """Return the declaration of a text with a number that no other row of the factory has."""
    return Sequence(text.format)  # type: ignore[no-untyped-call]  # factory_boy has no types


def derived(function: Callable[[Any], object]) -> Any:
    """Return the declaration of a value that is computed from the row's others."""
    return LazyAttribute(function)  # type: ignore[no-untyped-call]  # factory_boy has no types


def past() -> datetime:
    """Return a time that is over, also by a clock that is a little behind."""
    return clock.now() - timedelta(seconds=1)


class TourFactory(DjangoModelFactory[Tour]):
    class Meta:
        model = Tour

    name = numbered("Tour {}")
    price = "10.00"
    capacity = 20


class RefundFactory(DjangoModelFactory[Refund]):
    """A refund of 150 euros that nobody has attempted yet, and that is not due."""

    class Meta:
        model = Refund

    booking_id = numbered("BK-{}")
    payment_id = numbered("pi_{}")
    amount_minor = 15_000
    currency = "eur"
    idempotency_key = derived(
        lambda refund: idempotency_key(
            refund.booking_id, refund.payment_id, getattr(refund, "seats_remaining", 0)
        )
    )
    request_payload = derived(lambda refund: _frozen(refund) if refund.first_sent_at else {})
    first_sent_at = None


def _frozen(columns: Any) -> Any:
    """Return what was sent for a refund."""
    refund = Refund(
        booking_id=columns.booking_id,
        payment_id=columns.payment_id,
        idempotency_key=columns.idempotency_key,
    )
    return frozen(refund, Terms(columns.amount_minor, columns.currency))["request_payload"]


class EmailFactory(DjangoModelFactory[CancellationEmail]):
    """An e-mail that nobody has attempted yet, and that is not due."""

    class Meta:
        model = CancellationEmail

    booking_id = numbered("BK-{}")
    recipient = numbered("ann{}@example.com")
    locale = "fr"
    subject = "Confirmation d'annulation de votre réservation"
    text_body = "Bonjour,\nvotre réservation a été annulée.\n"
    html_body = '<!doctype html><html lang="fr"><body><p>Bonjour</p></body></html>'
    message_id = numbered("<cancellation.{}@example.com>")
