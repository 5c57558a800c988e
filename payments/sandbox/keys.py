"""What is remembered under an idempotency key: https://docs.stripe.com/api/idempotent_requests."""

from collections.abc import Callable
from dataclasses import dataclass

from payments.sandbox.errors import key_in_use, other_endpoint, other_parameters
from payments.sandbox.parameters import Parameters

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
    """A key in use: by whom, for what, since when, and the answer once there is one."""

    api_key: str
    key: str
    endpoint: str
    parameters: Parameters
    since: int
    in_flight: bool = True
    reply: Reply | None = None


class Keys:
    """Keys of every API key. Callers hold a lock around it."""

    def __init__(self, *, now: Callable[[], int]) -> None:
        self._now = now
        self._entries: dict[tuple[str, str], Entry] = {}

    def claim(self, api_key: str, key: str, endpoint: str, parameters: Parameters) -> Entry:
        """Take a key for a request, which must release it.

        Raises:
            StripeError: it is in flight, or was used for another request.
        """
        entry = self._entries.get((api_key, key))
        if entry and entry.in_flight:
            raise key_in_use(key)
        if entry is None or self._now() - entry.since >= REMEMBERED_SECONDS:
            entry = Entry(api_key, key, endpoint, parameters, self._now())
            self._entries[api_key, key] = entry
        if entry.endpoint != endpoint:
            raise other_endpoint(key, endpoint, entry.endpoint)
        if entry.parameters != parameters:  # by value: their order means nothing
            raise other_parameters(key)
        entry.in_flight = True
        return entry

    def release(self, entry: Entry) -> None:
        """End the flight; without an answer worth saving the key is free again."""
        entry.in_flight = False
        if entry.reply is None and self._entries.get((entry.api_key, entry.key)) is entry:
            del self._entries[entry.api_key, entry.key]
