"""Stripe's webhooks: they say that a refund changed, and never how.

Stripe delivers them in any order, late, and more than once (https://docs.stripe.com/webhooks). So a
webhook only has the refund taken up again; the attempt, under its lease, asks Stripe what is true.
"""

import structlog
from django.conf import settings
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from booking_platform.messaging import leases
from payments import stripe_gateway
from payments.answers import InvalidWebhook, Notice
from payments.models import Refund

log = structlog.get_logger(__name__)

EVENT_TYPES = (
    "refund.created",
    "refund.updated",
    "refund.failed",
    "charge.refunded",
    "charge.refund.updated",  # what accounts with an old API version get for the second
)


@csrf_exempt  # no browser, no session: the signature says who sent it
@require_POST
def receive(request: HttpRequest) -> HttpResponse:
    """Schedule the refunds that a webhook speaks of; answer 400 to what Stripe did not sign just now."""
    if not settings.STRIPE_WEBHOOK_SECRET:
        log.error("A webhook can't be verified: set STRIPE_WEBHOOK_SECRET (whsec_…)")
        return HttpResponse("webhooks can't be verified here yet", status=503)
    try:
        notice = stripe_gateway.read_webhook(
            request.body, request.headers.get("Stripe-Signature", "")
        )
    except InvalidWebhook as error:
        log.warning("Webhook refused", why=str(error))
        return HttpResponse(str(error), status=400)
    marked = _mark_due(notice) if notice.event_type in EVENT_TYPES else 0
    log.info("Webhook taken", type=notice.event_type, refund_id=notice.refund_id, refunds=marked)
    return HttpResponse()


def _mark_due(notice: Notice) -> int:
    about = Q()
    if notice.refund_id:
        about |= Q(stripe_refund_id=notice.refund_id)
    if notice.key:
        about |= Q(idempotency_key=notice.key)
    if payments := {notice.payment_id, notice.charge_id} - {""}:
        about |= Q(payment_id__in=payments)
    return leases.mark_due(Refund.objects.filter(about)) if about else 0
