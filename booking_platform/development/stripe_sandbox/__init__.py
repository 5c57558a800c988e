"""A Stripe of our own on 127.0.0.1, for tests and for trying things out.

It keeps Stripe's promises about refunds and idempotency keys, and breaks connections on demand, so
that "exactly one refund" can be proven over real HTTP with Stripe's own library. Nothing outlives
the process. Each rule names the page of Stripe's documentation, or the observation, it follows.
"""

from booking_platform.development.stripe_sandbox.account import Record
from booking_platform.development.stripe_sandbox.sandbox import Sandbox, Unknown
from booking_platform.development.stripe_sandbox.server import running

__all__ = ["Record", "Sandbox", "Unknown", "running"]
