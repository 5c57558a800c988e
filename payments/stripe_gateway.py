"""Stripe, as the refunds need it: the only module that imports ``stripe``.

Nothing of the library leaves this module: its objects and errors carry keys. What they hold is
chosen field by field, and returned as the values of ``answers``.
"""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from http import HTTPStatus
from typing import Any, TypeVar

import requests
import stripe
import structlog
from django.conf import settings
from requests.adapters import HTTPAdapter

from booking_platform.messaging import clock
from payments.answers import (
    Answer,
    Failure,
    InvalidWebhook,
    Notice,
    OtherParameters,
    StripeRefund,
    StripeRefusal,
    Unknown,
)

log = structlog.get_logger(__name__)

# Answers keep their meaning when the account's default version moves on.
API_VERSION = "2026-10-28.endive"

# Seconds to connect, and to wait for more of an answer; the SDK's own default is 80.
TIMEOUTS = (5.0, 30.0)
LONGEST_ANSWER = 60.0  # seconds, however it drips
LARGEST_ANSWER = 16 * 2**20  # bytes, unpacked

OLDEST_WEBHOOK = timedelta(minutes=5)  # a later one is a repeat that somebody has kept

PAGE = 100  # refunds a page, the most that Stripe gives
PAGES = 20  # of one payment's refunds: more than any can have
PAGES_OF_ACCOUNT = 100_000

# https://docs.stripe.com/error-low-level: these prove nothing about the request, whatever their
# status; 409 is another request under the key that still runs.
_NO_ANSWER_CODES = frozenset({"idempotency_key_in_use", "lock_timeout"})

# What is kept of a refund: nothing of the card or the bank account it goes to.
_KEPT = (
    "id", "object", "amount", "currency", "status", "payment_intent", "charge", "created", "reason",
    "failure_reason", "pending_reason",
)  # fmt: skip
_OUR_METADATA = ("booking_id", "idempotency_key")
_LONGEST_TEXT = 500

_SECRETS = re.compile(r"(?:sk|rk|pk|whsec|secret)_[\w*…]+|\d(?:[ .-]?\d){12,18}")

T = TypeVar("T")


def send(request: dict[str, Any], key: str) -> Answer:
    """Send Stripe a request for a refund under an idempotency key, and return the answer.

    https://docs.stripe.com/api/refunds/create, https://docs.stripe.com/api/idempotent_requests
    """
    refunds, same = _client().v1.refunds, _ordered(request)
    return _asking(lambda: _refund(refunds.create(same, {"idempotency_key": key})))


def fetch(refund_id: str) -> Answer:
    """Return a refund as it is now. https://docs.stripe.com/api/refunds/retrieve"""
    return _asking(lambda: _refund(_client().v1.refunds.retrieve(refund_id)))


def look(payment_id: str) -> list[StripeRefund] | Failure:
    """Return all refunds of a payment, whoever made them. https://docs.stripe.com/api/refunds/list"""
    return _listing({"payment_intent": payment_id}, PAGES)


def since(moment: datetime) -> list[StripeRefund] | Failure:
    """Return all refunds of the account that were made since a moment."""
    return _listing({"created": {"gte": int(moment.timestamp())}}, PAGES_OF_ACCOUNT)


def read_webhook(body: bytes, signature: str) -> Notice:
    """Check the signature of a webhook, and return what it speaks of. https://docs.stripe.com/webhooks#verify-official-libraries

    Raises:
        InvalidWebhook: the signature is wrong or older than five minutes, or this is no event.
    """
    try:
        # Its age is judged below: the library would hold it against the clock of this machine.
        secret, any_age = settings.STRIPE_WEBHOOK_SECRET, 0
        event = _client().construct_event(body, signature, secret, any_age)
        about: Any = event.data.object
        event_type = str(event.type)
    except (stripe.SignatureVerificationError, ValueError, LookupError, AttributeError,
            TypeError, RecursionError):  # fmt: skip
        # Without the error's own words: it repeats what was sent.
        raise InvalidWebhook("not a body that Stripe signed in the last minutes") from None
    if clock.now() - _signed_at(signature) > OLDEST_WEBHOOK:
        raise InvalidWebhook("signed longer than five minutes ago")
    is_refund = _get(about, "object") == "refund"
    metadata = _get(about, "metadata") if is_refund else None
    return Notice(
        event_type,
        refund_id=_text(about, "id") if is_refund else "",
        key=_text(metadata, "idempotency_key") if metadata else "",
        payment_id=_text(about, "payment_intent"),
    )


def _signed_at(signature: str) -> datetime:
    """Return when a signature that was verified was made."""
    items = (item.partition("=") for item in signature.split(","))
    return datetime.fromtimestamp(int(next(value for name, _, value in items if name == "t")), UTC)


def _client() -> stripe.StripeClient:
    return _kept_client(settings.STRIPE_SECRET_KEY, settings.STRIPE_API_BASE)


@cache
def _kept_client(api_key: str, api_base: str) -> stripe.StripeClient:
    """Return the client of this process; each thread keeps a connection of its own."""
    return stripe.StripeClient(
        api_key,
        stripe_version=API_VERSION,
        base_addresses={"api": api_base},
        max_network_retries=0,  # each attempt is ours, counted and committed
        http_client=stripe.RequestsClient(timeout=TIMEOUTS, session=_Session()),
    )


class _Session(requests.Session):
    """Connections that end: no redirects, and no answer that goes on without end or fills the memory."""

    def __init__(self) -> None:
        super().__init__()
        self.auth = lambda request: request  # the SDK's own header, never one from ~/.netrc
        for scheme in ("https://", "http://"):
            self.mount(scheme, HTTPAdapter(pool_maxsize=100))  # for all threads of a worker

    def request(self, *args: Any, **how: Any) -> requests.Response:
        deadline = time.monotonic() + LONGEST_ANSWER
        how |= {"allow_redirects": False, "stream": True}
        response = super().request(*args, **how)
        content = bytearray()
        with response:
            for part in response.iter_content(2**16):
                content += part
                if time.monotonic() > deadline or len(content) > LARGEST_ANSWER:
                    raise requests.Timeout("the answer does not end")
        response._content = bytes(content)
        return response


def _asking(call: Callable[[], T]) -> T | Failure:
    """Call Stripe; return its answer, or what the error proves."""
    try:
        return call()
    except (stripe.IdempotencyError, stripe.InvalidRequestError, stripe.CardError) as error:
        if _code(error) in _NO_ANSWER_CODES:
            return _unknown(error)
        if isinstance(error, stripe.IdempotencyError):
            return OtherParameters(_words(error))
        return StripeRefusal(_code(error), _words(error))
    except stripe.StripeError as error:
        return _unknown(error)
    except Exception as error:  # what the SDK makes of an answer that is not Stripe's, or a bug
        log.exception("Stripe's answer can't be read")
        return Unknown(f"an answer that can't be read: {type(error).__name__}")


def _ordered(request: Any) -> Any:
    """Return a request in alphabetical order, so that every attempt sends the same bytes."""
    if not isinstance(request, dict):
        return request
    return {name: _ordered(request[name]) for name in sorted(request)}


def _listing(query: dict[str, Any], most: int) -> list[StripeRefund] | Failure:
    """Return all pages of a list, or why there are none: half a list proves nothing."""
    refunds: list[StripeRefund] = []
    after: dict[str, str] = {}
    for _ in range(most):
        asked: Any = {**query, **after, "limit": PAGE}
        page = _asking(lambda asked=asked: _page(_client().v1.refunds.list(asked)))  # type: ignore[misc]
        if not isinstance(page, tuple):
            return page
        read, more = page
        if unreadable := [one for one in read if isinstance(one, Unknown)]:
            return unreadable[0]
        refunds += [one for one in read if isinstance(one, StripeRefund)]
        if not more:
            return refunds
        if not read or after.get("starting_after") == refunds[-1].refund_id:
            break
        after = {"starting_after": refunds[-1].refund_id}
    return Unknown("a list of refunds that does not end")


def _page(answer: Any) -> tuple[list[StripeRefund | Unknown], bool] | Unknown:
    data = _get(answer, "data")
    if _get(answer, "object") != "list" or not isinstance(data, list):
        return Unknown("an answer of success that is no list")
    return [_refund(one) for one in data], bool(_get(answer, "has_more"))


def _refund(answer: Any) -> StripeRefund | Unknown:
    """Return the answer as a refund. What is none comes from a proxy, say, and proves nothing."""
    record = {name: _plain(_get(answer, name)) for name in _KEPT}
    metadata = _get(answer, "metadata")
    record["metadata"] = {name: _text(metadata, name) for name in _OUR_METADATA}
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
        key=record["metadata"]["idempotency_key"],
        created_at=datetime.fromtimestamp(created, UTC),
        record=record,
    )


def _unknown(error: stripe.StripeError) -> Unknown:
    if error.http_status is None:
        cause = type(error.__cause__ or error).__name__
        return Unknown(f"no answer from Stripe: {cause}")
    saved = error.http_status >= HTTPStatus.INTERNAL_SERVER_ERROR and (
        (error.headers or {}).get("Idempotent-Replayed") == "true"
    )
    return Unknown(f"Stripe answered {error.http_status}: {_words(error)}", repeats=saved)


def _code(error: stripe.StripeError) -> str:
    # Not `error.code`: the SDK leaves that empty on conflicts, limits and idempotency errors.
    return str(_get(error.error, "code") or "") if error.error else ""


def _words(error: stripe.StripeError) -> str:
    """Return Stripe's own message, without what looks like a key or a card number."""
    message = _text(error.error, "message") if error.error else ""
    return _SECRETS.sub("…", " ".join(message.split())) or "no words that can be read"


def _get(of: Any, name: str) -> Any:
    """Return a field of one of Stripe's objects, which are no dicts; None if it has no such field."""
    try:
        return of[name]
    except (KeyError, TypeError, IndexError):
        return None


def _text(of: Any, name: str) -> str:
    value = _get(of, name)
    return _storable(value) if isinstance(value, str) else ""


def _plain(value: Any) -> Any:
    """Return a value as any database stores it; of an expanded object only its id."""
    if isinstance(value, stripe.StripeObject):
        value = _get(value, "id")
    if isinstance(value, str):
        return _storable(value)
    return value if isinstance(value, int) and abs(value) < 2**63 else None


def _storable(text: str) -> str:
    """Return text without NUL and half characters, cut where it is too long."""
    return text[:_LONGEST_TEXT].replace("\0", "\ufffd").encode(errors="replace").decode()
