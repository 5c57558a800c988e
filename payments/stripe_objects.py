"""Stripe's objects: what is read of them, field by field, and nothing else.

What is not of the shape that Stripe documents comes from a proxy, say, and proves nothing: ``Unknown``.
"""

from datetime import UTC, datetime
from typing import Any

from payments.answers import StripePayment, StripeRefund, Unknown

# What is kept of a refund: nothing of the card or the bank account it goes to.
_KEPT = (
    "id", "object", "amount", "currency", "status", "payment_intent", "charge", "created", "reason",
    "failure_reason", "pending_reason",
)  # fmt: skip
_OUR_METADATA = ("booking_id", "idempotency_key")
_LONGEST_TEXT = 500

# Under which names a producer may note a payment's booking in its metadata.
_BOOKING = ("booking_id", "bookingId")


def is_charge(payment_id: str) -> bool:
    """Return whether an id is that of a charge, and not of a payment intent."""
    return payment_id.startswith(("ch_", "py_"))


def intent(answer: Any, asked: str) -> tuple[StripePayment, bool] | Unknown:
    """Return a payment intent as a payment, and whether all its refunds were in the answer.

    https://docs.stripe.com/api/payment_intents/object, with ``latest_charge.refunds`` expanded.
    """
    if get(answer, "object") != "payment_intent" or get(answer, "id") != asked:
        return Unknown("an answer of success that is no such payment intent")
    charge = get(answer, "latest_charge")
    paid = get(answer, "status") == "succeeded"
    received = _units(answer, "amount_received", otherwise="amount" if paid else "")
    return _payment(answer, received, intent=answer, charge=charge)


def charge(answer: Any, asked: str) -> tuple[StripePayment, bool] | Unknown:
    """Return a charge as a payment, and whether all its refunds were in the answer.

    https://docs.stripe.com/api/charges/object, with ``refunds`` and ``payment_intent`` expanded.
    """
    if get(answer, "object") != "charge" or get(answer, "id") != asked:
        return Unknown("an answer of success that is no such charge")
    paid = get(answer, "status") == "succeeded" and get(answer, "captured") is not False
    received = _units(answer, "amount_captured", otherwise="amount" if paid else "")
    return _payment(answer, received, intent=get(answer, "payment_intent"), charge=answer)


def page(answer: Any) -> tuple[list[StripeRefund | Unknown], bool] | Unknown:
    """Return one page of a list of refunds, and whether there are more."""
    data = get(answer, "data")
    if get(answer, "object") != "list" or not isinstance(data, list):
        return Unknown("an answer of success that is no list")
    return [refund(one) for one in data], bool(get(answer, "has_more"))


def refund(answer: Any) -> StripeRefund | Unknown:
    """Return the answer as a refund. What is none comes from a proxy, say, and proves nothing."""
    record = {name: _plain(get(answer, name)) for name in _KEPT}
    metadata = get(answer, "metadata")
    record["metadata"] = {name: text(metadata, name) for name in _OUR_METADATA}
    amount, created = record["amount"], record["created"]
    if (
        record["object"] != "refund"
        or not isinstance(record["id"], str)
        or {type(amount), type(created)} != {int}
    ):
        return Unknown("an answer of success that is no refund")
    return StripeRefund(
        refund_id=record["id"][:255],
        status=str(record["status"] or "")[:50],
        amount_minor=amount,
        currency=str(record["currency"] or "").lower(),
        payment_id=str(record["payment_intent"] or ""),
        charge_id=str(record["charge"] or ""),
        key=record["metadata"]["idempotency_key"],
        created_at=datetime.fromtimestamp(created, UTC),
        record=record,
        request_id=_request_id(answer),
    )


def _payment(
    answer: Any, received: int, *, intent: Any, charge: Any
) -> tuple[StripePayment, bool] | Unknown:
    currency = text(answer, "currency").lower()
    if not currency:
        return Unknown("an answer of success that is no payment")
    listed = page(get(charge, "refunds"))
    refunds, more = ([], True) if isinstance(listed, Unknown) else listed
    read = [one for one in refunds if isinstance(one, StripeRefund)]
    payment = StripePayment(
        intent_id=str(_plain(intent) or ""),
        charge_id=str(_plain(charge) or ""),
        status=text(answer, "status")[:50],
        currency=currency[:3],
        received_minor=received,
        refunded_by_charge=_units(charge, "amount_refunded"),
        booking_id=_booking(intent) or _booking(charge),
        refunds=read,
        request_id=_request_id(answer),
    )
    return payment, not more and len(read) == len(refunds)


def _request_id(answer: Any) -> str:
    """Return the id of the request that was answered; empty for a part of an answer."""
    response = getattr(answer, "last_response", None)
    return storable(str(getattr(response, "headers", {}).get("Request-Id") or ""))


def _booking(of: Any) -> str:
    metadata = get(of, "metadata")
    return next(filter(None, (text(metadata, name) for name in _BOOKING)), "")


def _units(of: Any, name: str, *, otherwise: str = "") -> int:
    value = get(of, name)
    if type(value) is not int and otherwise:
        value = get(of, otherwise)
    return value if type(value) is int else 0


def get(of: Any, name: str) -> Any:
    """Return a field of one of Stripe's objects, which are no dicts; None if it has no such field."""
    try:
        return of[name]
    except (KeyError, TypeError, IndexError):
        return None


def text(of: Any, name: str) -> str:
    value = get(of, name)
    return storable(value) if isinstance(value, str) else ""


def _plain(value: Any) -> Any:
    """Return a value as any database stores it; of an expanded object only its id."""
    if not isinstance(value, str | int):
        value = get(value, "id")
    if isinstance(value, str):
        return storable(value)
    return value if isinstance(value, int) and abs(value) < 2**63 else None


def storable(text: str) -> str:
    """Return text without NUL and half characters, cut where it is too long."""
    return text[:_LONGEST_TEXT].replace("\0", "\ufffd").encode(errors="replace").decode()
