"""Stripe, as the refunds need it: the only module that imports ``stripe``.

Nothing of the library leaves this module: its objects and errors carry keys. What they hold is
chosen field by field, and returned as the values of ``answers``.
"""

import re
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from http import HTTPStatus
from typing import Any, TypeVar

import requests
import stripe
import structlog
from django.conf import settings
from requests.adapters import HTTPAdapter
from urllib3.exceptions import NewConnectionError

from booking_platform.messaging import clock
from payments import stripe_objects
from payments.answers import (
    NO_BALANCE,
    Answer,
    Failure,
    InvalidWebhook,
    Notice,
    OtherParameters,
    StripePayment,
    StripeRefund,
    StripeRefusal,
    Unknown,
)
from payments.stripe_objects import get, text

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

# The credentials are wrong, or there are too many requests: refused before anything is looked at.
# https://docs.stripe.com/api/errors, https://docs.stripe.com/rate-limits
_NOT_EXECUTED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS)

_PAYMENT_ID = re.compile(r"[\w.:-]*\w[\w.:-]*", re.ASCII)

_SECRETS = re.compile(r"(?:sk|rk|pk|whsec|secret)_[\w*…]+|\d(?:[ .-]?\d){12,18}")

T = TypeVar("T")


def send(request: dict[str, Any], key: str) -> Answer:
    """Send Stripe a request for a refund under an idempotency key, and return the answer.

    https://docs.stripe.com/api/refunds/create, https://docs.stripe.com/api/idempotent_requests
    """
    refunds, same = _client().v1.refunds, _ordered(request)
    return _asking(lambda: stripe_objects.refund(refunds.create(same, {"idempotency_key": key})))


def fetch(refund_id: str) -> Answer:
    """Return a refund as it is now. https://docs.stripe.com/api/refunds/retrieve"""
    return _asking(lambda: stripe_objects.refund(_client().v1.refunds.retrieve(refund_id)))


def look(payment_id: str) -> StripePayment | Failure:
    """Return a payment with all its refunds, whoever made them: one request where one is enough.

    https://docs.stripe.com/api/payment_intents/retrieve, https://docs.stripe.com/api/charges/retrieve
    """
    if not _PAYMENT_ID.fullmatch(payment_id):  # in an address it might lead elsewhere
        return StripeRefusal("resource_missing", f"No payment has such an id: {payment_id!r}")
    is_charge = stripe_objects.is_charge(payment_id)
    read = _asking(lambda: _charge(payment_id) if is_charge else _intent(payment_id))
    if not isinstance(read, tuple):
        return read
    payment, complete = read
    if complete:
        return payment
    listed = _listing({"charge" if is_charge else "payment_intent": payment_id}, PAGES)
    return replace(payment, refunds=listed) if isinstance(listed, list) else listed


def _intent(payment_id: str) -> tuple[StripePayment, bool] | Unknown:
    expanded: Any = {"expand": ["latest_charge.refunds"]}
    answer = _client().v1.payment_intents.retrieve(payment_id, expanded)
    return stripe_objects.intent(answer, payment_id)


def _charge(payment_id: str) -> tuple[StripePayment, bool] | Unknown:
    expanded: Any = {"expand": ["refunds", "payment_intent"]}
    answer = _client().v1.charges.retrieve(payment_id, expanded)
    return stripe_objects.charge(answer, payment_id)


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
    is_refund = get(about, "object") == "refund"
    metadata = get(about, "metadata") if is_refund else None
    return Notice(
        event_type,
        refund_id=text(about, "id") if is_refund else "",
        key=text(metadata, "idempotency_key") if metadata else "",
        payment_id=text(about, "payment_intent"),
        charge_id=text(about, "charge" if is_refund else "id"),
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
            return OtherParameters(_words(error), request_id=_request_id(error))
        return StripeRefusal(_code(error), _words(error), request_id=_request_id(error))
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
        page = _asking(lambda asked=asked: stripe_objects.page(_client().v1.refunds.list(asked)))  # type: ignore[misc]
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


def _unknown(error: stripe.StripeError) -> Unknown:
    if error.http_status is None:
        cause = error.__cause__ or error
        reached = not _never_connected(cause)
        return Unknown(f"no answer from Stripe: {type(cause).__name__}", reached=reached)
    saved = error.http_status >= HTTPStatus.INTERNAL_SERVER_ERROR and (
        (error.headers or {}).get("Idempotent-Replayed") == "true"
    )
    why = f"Stripe answered {error.http_status}: {_words(error)}"
    reached = error.http_status not in _NOT_EXECUTED or _code(error) in _NO_ANSWER_CODES
    return Unknown(why, repeats=saved, reached=reached, request_id=_request_id(error))


def _never_connected(cause: BaseException) -> bool:
    """Return whether no byte of the request can have left this machine."""
    reason = getattr(next(iter(cause.args), None), "reason", None)
    return isinstance(cause, requests.ConnectTimeout) or isinstance(reason, NewConnectionError)


def _code(error: stripe.StripeError) -> str:
    # Not `error.code`: the SDK leaves that empty on conflicts, limits and idempotency errors.
    said = error.error
    if get(said, "message_code") == "insufficient_balance_for_refund":
        return NO_BALANCE  # which some accounts get without a code
    return str(get(said, "code") or "")


def _request_id(error: stripe.StripeError) -> str:
    return stripe_objects.storable(str(error.request_id or ""))


def _words(error: stripe.StripeError) -> str:
    """Return Stripe's own message, without what looks like a key or a card number."""
    message = text(error.error, "message") if error.error else ""
    return _SECRETS.sub("…", " ".join(message.split())) or "no words that can be read"
