"""System checks of a deployment: ``manage.py check --deploy``."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

SECRETS = {
    "STRIPE_SECRET_KEY": "no worker takes up refunds without it",
    "STRIPE_WEBHOOK_SECRET": "Stripe's webhooks are answered with 503 without it",
}


@register(deploy=True)
def stripe_is_set_up(**_: Any) -> list[CheckMessage]:
    """Return what production lacks in order to refund."""
    return [
        Error(
            f"{name} is not set: {consequence}.",
            hint="Both are in Stripe's dashboard, under Developers.",
            id="payments.E001",
        )
        for name, consequence in SECRETS.items()
        if not getattr(settings, name)
    ]
