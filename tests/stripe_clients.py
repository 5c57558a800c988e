"""Clients of the Stripe sandbox, with Stripe's own library."""

from typing import Any, cast

import stripe
from stripe.params import RefundCreateParams

from booking_platform.development.stripe_sandbox import Sandbox
from tests.servers import wait_until


def client(sandbox: Sandbox, api_key: str = "sk_test_1") -> stripe.StripeClient:
    return stripe.StripeClient(api_key, base_addresses={"api": sandbox.url})


def refund(
    api: stripe.StripeClient, payment: str, amount: int = 5000, key: str = "key", **more: Any
) -> stripe.Refund:
    asked = {"payment_intent": payment, "amount": amount, **more}
    return api.v1.refunds.create(cast(RefundCreateParams, asked), {"idempotency_key": key})


def replayed(answered: Any) -> bool:
    return bool(answered.last_response.headers.get("Idempotent-Replayed") == "true")


def in_flight(sandbox: Sandbox, fault: str) -> None:
    """Wait until a request is held up by a fault."""
    wait_until(
        lambda: [each for each in sandbox.requests if each.fault == fault and not each.answered],
        what=f"a request with {fault}",
    )
