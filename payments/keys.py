"""The idempotency keys under which refunds are sent to Stripe, and how such keys are read.

::

    booking-platform:refund:<booking>:<payment and step>[:<issue>]

A key derives from what is refunded, not from the message that asks for it, and is the same on every
attempt. Its parts are hashes, since ids may be longer than a key, and may say who travels. A further
``issue`` is a new request to Stripe: only where Stripe can't act on the one before.

The version before refunded a booking once, under the hash of the booking alone. Rows keep their keys.
"""

import re
from hashlib import sha256

# Names this platform's keys among others of the same Stripe account.
NAMESPACE = "booking-platform:refund:"

_KEY = re.compile(rf"({NAMESPACE}[0-9a-f]{{64}}(?::[0-9a-f]{{32}})?)(?::([1-9][0-9]{{0,8}}))?")


def booking_key(booking_id: str) -> str:
    """Return how all keys of a booking begin; the version before sent this alone."""
    return NAMESPACE + sha256(f"BookingCancelled\0{booking_id}".encode()).hexdigest()


def idempotency_key(booking_id: str, payment_id: str, seats_remaining: int = 0) -> str:
    """Return the first key of a refund: of one payment, for one step of the booking's life."""
    refund = sha256(f"{payment_id}\0{seats_remaining}".encode()).hexdigest()
    return f"{booking_key(booking_id)}:{refund[:32]}"


def without_issue(key: str) -> str:
    """Return the first issue of a key; empty where the key is not ours."""
    ours = _KEY.fullmatch(key)
    return ours[1] if ours else ""


def booking_of(key: str) -> str:
    """Return the key of the booking that a key belongs to; empty where the key is not ours."""
    return without_issue(key)[: len(booking_key(""))]


def next_issue(key: str) -> str:
    """Return the key that follows a key: for Stripe another request for the same refund.

    Raises:
        ValueError: the key is not ours.
    """
    ours = _KEY.fullmatch(key)
    if ours is None:
        raise ValueError(f"no key of a refund: {key!r}")
    return f"{ours[1]}:{int(ours[2] or 1) + 1}"
