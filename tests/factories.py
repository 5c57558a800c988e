import factory

from catalog.models import Tour
from notifications.models import CancellationEmail
from payments.models import IdempotencyStore, idempotency_key, refund_request


class TourFactory(factory.django.DjangoModelFactory[Tour]):
    class Meta:
        model = Tour

    name = factory.Sequence(lambda number: f"Tour {number}")
    price = "10.00"
    capacity = 20


class RefundFactory(factory.django.DjangoModelFactory[IdempotencyStore]):
    """A refund of 150 euros that nobody has attempted yet, and that is not due."""

    class Meta:
        model = IdempotencyStore

    booking_id = factory.Sequence(lambda number: f"BK-{number}")
    payment_id = factory.Sequence(lambda number: f"pi_{number}")
    amount_minor = 15_000
    currency = "eur"
    idempotency_key = factory.LazyAttribute(lambda refund: idempotency_key(refund.booking_id))
    request_payload = factory.LazyAttribute(
        lambda refund: refund_request(
            refund.booking_id, refund.payment_id, refund.amount_minor, refund.idempotency_key
        )
    )


class EmailFactory(factory.django.DjangoModelFactory[CancellationEmail]):
    """An e-mail that nobody has attempted yet, and that is not due."""

    class Meta:
        model = CancellationEmail

    booking_id = factory.Sequence(lambda number: f"BK-{number}")
    recipient = factory.Sequence(lambda number: f"ann{number}@example.com")
    locale = "fr"
    subject = "Confirmation d'annulation de votre réservation"
    text_body = "Bonjour,\nvotre réservation a été annulée.\n"
    html_body = '<!doctype html><html lang="fr"><body><p>Bonjour</p></body></html>'
    message_id = factory.Sequence(lambda number: f"<cancellation.{number}@example.com>")
