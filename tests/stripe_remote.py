"""A Stripe sandbox in another process, through its control over HTTP."""

import json
import urllib.error
import urllib.request
from typing import Any

from booking_platform.development.stripe_sandbox import Record, Unknown
from booking_platform.development.stripe_sandbox.control import ENCODING
from booking_platform.development.stripe_sandbox.objects import Object

TIMEOUT_SECONDS = 30

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine


class Remote:
    """A sandbox in another process. The members are those of ``Sandbox``; see there.

    Raises:
        OSError: nothing answers at the URL.
        Unknown, ValueError: as from the sandbox itself.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    @property
    def refunds(self) -> list[Object]:
        return list(self._call("GET", "refunds"))

    @property
    def requests(self) -> list[Record]:
        records = self._call("GET", "requests")
        return [Record(**{**each, "body": each["body"].encode(ENCODING)}) for each in records]

    @property
    def webhooks_sent(self) -> int:
        return int(self._call("GET", "webhooks")["sent"])

    def payment(self, **given: Any) -> str:
        return str(self._call("POST", "payments", given)["id"])

    def change_payment(self, identifier: str, **given: Any) -> Object:
        return dict(self._call("POST", f"payments/{identifier}", given))

    def change_refund(self, identifier: str, **given: Any) -> Object:
        return dict(self._call("POST", f"refunds/{identifier}", given))

    def set_balance(self, currency: str, minor_units: int | None) -> None:
        self._call("POST", "balance", {"currency": currency, "minor_units": minor_units})

    def fail(self, fault: str, **given: Any) -> None:
        self._call("POST", "faults", {"fault": fault, **given})

    def clear_faults(self) -> None:
        self._call("DELETE", "faults")

    def advance(self, seconds: float) -> None:
        self._call("POST", "clock", {"advance": seconds})

    def reset(self) -> None:
        self._call("DELETE", "")

    def _call(self, method: str, path: str, given: dict[str, Any] | None = None) -> Any:
        url = f"{self.url}/_sandbox/{path}".rstrip("/")
        body = None if given is None else json.dumps(given).encode()
        request = urllib.request.Request(url, body, method=method)  # noqa: S310  (given by a developer)
        try:
            with _opener.open(request, timeout=TIMEOUT_SECONDS) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                said = json.load(error).get("error", "")
            raise Unknown(said) if error.code == 404 else ValueError(said) from None
