"""Faults on demand: what may go wrong between a client and Stripe, and on Stripe's side."""

import threading
from collections.abc import Collection
from dataclasses import dataclass, field

from booking_platform.development.stripe_sandbox.errors import (
    SavedError,
    StripeError,
    insufficient_balance,
    invalid_api_key,
    key_in_use,
    masked,
)

# Nothing is executed and nothing is saved under the key.
BEFORE = {
    "drop_before": "the connection is closed",
    "unavailable": "503",
    "failed_dependency": "424: something outside Stripe failed",
    "rate_limited": "429",
    "unauthorized": "401",
    "forbidden": "403",
    "conflict": "409: the key seems to be in flight",
}
# Execution began, so the answer is saved: https://docs.stripe.com/api/idempotent_requests.
DURING = {
    "slow_before": "a wait, then the execution; the key is in flight meanwhile",
    "error_before": "500, and nothing done",
    "error_after": "500, though it was done",
    "balance_insufficient": "400: the account has too little money; nothing done",
    "balance_insufficient_uncoded": "the same, without a code, as some accounts have seen it",
}
# Executed and saved as ever; only the answer doesn't come as it should.
AFTER = {
    "drop_after": "the connection is closed",
    "slow_after": "a wait, then the answer; the key is in flight meanwhile",
    "garbage": "200 with a text that is not JSON",
    "truncated": "less than Content-Length says",
    "not_a_refund": "200 with an empty object",
}
NAMES = {**BEFORE, **DURING, **AFTER}


@dataclass
class Fault:
    """What goes wrong with the next ``times`` requests that fit; 0 means all of them.

    POST is of ``/v1/refunds``; GET is of refunds, payment intents and charges.
    """

    name: str
    times: int = 1
    payment: str | None = None  # the id of a payment intent or of a charge
    seconds: float = 0.0
    method: str = "POST"
    over: threading.Event = field(default_factory=threading.Event)  # it slows down nobody any more

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ValueError(f"fault is {self.name!r}: give one of {', '.join(NAMES)}")
        if self.method not in ("GET", "POST"):
            raise ValueError(f"method is {self.method!r}: give GET or POST")
        if self.times < 0 or self.seconds < 0:
            raise ValueError("times and seconds can't be negative")


def take(faults: list[Fault], method: str, named: Collection[str]) -> Fault | None:
    """Return the first fault that fits a request, and count the request against its times.

    ``named`` has the ids of the payment that the request is about.
    """
    for fault in faults:
        if fault.method == method and (fault.payment is None or fault.payment in named):
            if fault.times == 1:
                faults.remove(fault)
            elif fault.times:
                fault.times -= 1
            return fault
    return None


def refusal(name: str, *, api_key: str, key: str | None) -> StripeError:
    """Return the error that a fault of ``BEFORE`` answers with.

    https://docs.stripe.com/error-low-level#server-errors, https://docs.stripe.com/rate-limits
    """
    answers = {
        "unavailable": StripeError(
            "Stripe is temporarily unavailable.", status=503, kind="api_error"
        ),
        "failed_dependency": StripeError(
            "A dependency outside Stripe failed.", status=424, kind="api_error"
        ),
        "rate_limited": StripeError("Request rate limit exceeded.", status=429, code="rate_limit"),
        "unauthorized": invalid_api_key(api_key),
        "forbidden": StripeError(
            f"The provided key '{masked(api_key)}' does not have the required permissions for this "
            "endpoint. Having the 'rak_charge_write' permission would allow this request to "
            "continue.",
            status=403,
        ),
        "conflict": key_in_use(key),
    }
    return answers[name]


def saved(name: str) -> SavedError:
    """Return the error that a fault of ``DURING`` answers with."""
    if name.startswith("balance_insufficient"):
        return insufficient_balance(code=name == "balance_insufficient")
    return SavedError("An unknown error occurred.", status=500, kind="api_error")
