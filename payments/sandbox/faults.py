"""Faults on demand: what may go wrong between a client and Stripe, and on Stripe's side."""

from collections.abc import Callable
from dataclasses import dataclass

from payments.sandbox import errors
from payments.sandbox.errors import StripeError

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
    """What happens to requests to ``/v1/refunds…``, to the next ``times`` or, with 0, to all."""

    name: str
    times: int = 1
    payment: str | None = None
    seconds: float = 0.0
    method: str = "POST"

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise ValueError(f"fault is {self.name!r}: give one of {', '.join(NAMES)}")
        if self.method not in ("GET", "POST"):
            raise ValueError(f"method is {self.method!r}: give GET or POST")
        if self.times < 0 or self.seconds < 0:
            raise ValueError("times and seconds can't be negative")


class Faults:
    """Faults in the order they were asked for. Callers hold a lock around it."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []

    def add(self, fault: Fault) -> None:
        self._waiting.append(fault)

    def clear(self) -> None:
        self._waiting.clear()

    def take(self, method: str, payment: str | None) -> Fault | None:
        """Find the first fault for a request, and count the request against its times."""
        for fault in self._waiting:
            if fault.method == method and fault.payment in (None, payment):
                if fault.times == 1:
                    self._waiting.remove(fault)
                elif fault.times:
                    fault.times -= 1
                return fault
        return None


def refusal(name: str, *, api_key: str, key: str | None) -> StripeError:
    """Answer at once, before any execution."""
    answers: dict[str, Callable[[], StripeError]] = {
        "unavailable": lambda: errors.failed(503, "Stripe is temporarily unavailable."),
        "failed_dependency": lambda: errors.failed(424, "A dependency outside Stripe failed."),
        "rate_limited": errors.rate_limited,
        "unauthorized": lambda: errors.invalid_api_key(api_key),
        "forbidden": lambda: errors.forbidden(api_key),
        "conflict": lambda: errors.key_in_use(key),
    }
    return answers[name]()


def unknown_error() -> StripeError:
    return errors.failed(500, "An unknown error occurred.", saved=True)
