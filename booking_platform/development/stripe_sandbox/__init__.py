"""A Stripe of our own on 127.0.0.1, for tests and for trying things out.

It keeps Stripe's promises about refunds and idempotency keys, and breaks connections on demand, so
that "exactly one refund" can be proven over real HTTP with Stripe's own library. Nothing outlives
the process. Each rule names the page of Stripe's documentation, or the observation, it follows.

A payment is there as soon as it is named: ``pi_sandbox_15000_eur_x`` (an intent and its charge),
``ch_sandbox_15000_eur_x`` or ``py_sandbox_15000_eur_x`` (a charge without an intent). Tests hold a
``Sandbox``; other processes control it with JSON under ``/_sandbox``, by the same names:

    POST   payments            {"amount": 15000, "currency": "eur", "metadata": {}, "status": "processing"}
    POST   payments/pi_…       {"status": "succeeded", "disputed": false, "refund_status": "pending"}
    POST   refunds/re_…        {"status": "failed", "failure_reason": "declined"}
    POST   balance             {"currency": "eur", "minor_units": 5000}; null: no limit
    POST   faults              {"fault": "balance_insufficient", "times": 1}; DELETE: no more
    POST   clock               {"advance": 90000}
    GET    refunds, requests, webhooks
    DELETE                     all that it remembers
"""

from booking_platform.development.stripe_sandbox.account import Record
from booking_platform.development.stripe_sandbox.sandbox import Sandbox, Unknown
from booking_platform.development.stripe_sandbox.server import running

__all__ = ["Record", "Sandbox", "Unknown", "running"]
