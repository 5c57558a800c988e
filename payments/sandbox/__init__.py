"""A Stripe of our own on 127.0.0.1, for tests and for trying things out.

It keeps Stripe's promises about refunds and idempotency keys, and breaks connections on demand, so
that "exactly one refund" can be proven over real HTTP with Stripe's own library. Nothing outlives
the process. Each rule names the page of Stripe's documentation, or the observation, it follows.
"""

from payments.sandbox.api import Record
from payments.sandbox.remote import Remote
from payments.sandbox.sandbox import Sandbox, running

__all__ = ["Record", "Remote", "Sandbox", "running"]
