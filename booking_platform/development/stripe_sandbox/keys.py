"""Idempotency keys: https://docs.stripe.com/api/idempotent_requests."""

from dataclasses import dataclass

from booking_platform.development.stripe_sandbox.errors import StripeError, key_in_use
from booking_platform.development.stripe_sandbox.parameters import Parameters

REMEMBERED_SECONDS = 24 * 60 * 60  # Stripe keeps keys for "at least" this long: never rely on more
LONGEST = 255  # characters


@dataclass
class Reply:
    """Status and body of an answer, and the id of the request that was first answered so."""

    status: int
    body: bytes
    request_id: str


@dataclass
class Entry:
    """The request that a key stands for, and the reply once there is one to remember."""

    endpoint: str
    parameters: Parameters
    since: int  # by the clock of the account
    in_flight: bool = True
    reply: Reply | None = None


class Keys:
    """The entries by API key and idempotency key. Callers hold a lock."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], Entry] = {}

    def claim(
        self, api_key: str, key: str, endpoint: str, parameters: Parameters, *, now: int
    ) -> Entry:
        """Return the entry of a key, with ``in_flight`` set; the caller must unset it in the end.

        An entry that is not in flight and has no reply counts for nothing: the key is free.

        Raises:
            StripeError: the key is too long, in flight, or was used for another request.
        """
        if len(key) > LONGEST:
            raise StripeError(f"Idempotency keys can be at most {LONGEST} characters long.")
        entry = self._entries.get((api_key, key))
        if entry and entry.in_flight:
            raise key_in_use(key)
        if entry is None or entry.reply is None or now - entry.since >= REMEMBERED_SECONDS:
            entry = self._entries[api_key, key] = Entry(endpoint, parameters, now)
        _check_same_request(entry, key, endpoint, parameters)
        entry.in_flight = True
        return entry


def _check_same_request(entry: Entry, key: str, endpoint: str, parameters: Parameters) -> None:
    if entry.endpoint != endpoint:
        # Worded as quoted in https://github.com/stripe/stripe-ruby/issues/598: new path, first path
        raise StripeError(
            "Keys for idempotent requests can only be used for the same endpoint they were first "
            f"used for ('{endpoint}' vs '{entry.endpoint}'). Try using a key other than '{key}' if "
            "you meant to execute a different request.",
            kind="idempotency_error",
        )
    if entry.parameters != parameters:  # by value: their order means nothing
        raise StripeError(
            "Keys for idempotent requests can only be used with the same parameters they were "
            f"first used with. Try using a key other than '{key}' if you meant to execute a "
            "different request.",
            kind="idempotency_error",
        )
