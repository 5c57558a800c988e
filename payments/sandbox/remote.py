"""A sandbox in another process, with the methods it has in its own."""

import json
import urllib.error
import urllib.request
from typing import Any

from payments.sandbox.api import Record
from payments.sandbox.control import ENCODING
from payments.sandbox.objects import Object
from payments.sandbox.state import Unknown

TIMEOUT_SECONDS = 30

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine


class Remote:
    """Does over HTTP what ``Sandbox`` does; see there.

    Raises:
        OSError: nothing answers at the URL.
        Unknown, ValueError: as from the sandbox itself.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def payment(self, *, amount: int, currency: str) -> str:
        return str(self._post("payments", amount=amount, currency=currency)["id"])

    @property
    def refunds(self) -> list[Object]:
        return list(self._call("GET", "refunds"))

    @property
    def requests(self) -> list[Record]:
        return [
            Record(**{**record, "body": record["body"].encode(ENCODING)})
            for record in self._call("GET", "requests")
        ]

    @property
    def webhooks_sent(self) -> int:
        return int(self._call("GET", "webhooks")["sent"])

    def fail(
        self,
        fault: str,
        times: int = 1,
        payment: str | None = None,
        seconds: float = 0.0,
        method: str = "POST",
    ) -> None:
        given = {"times": times, "payment": payment, "seconds": seconds, "method": method}
        self._post("faults", fault=fault, **given)

    def clear_faults(self) -> None:
        self._call("DELETE", "faults")

    def advance(self, seconds: float) -> None:
        self._post("clock", advance=seconds)

    def change_refund(self, identifier: str, *, status: str, failure_reason: str = "") -> Object:
        changed = {"status": status, "failure_reason": failure_reason}
        return dict(self._post(f"refunds/{identifier}", **changed))

    def change_payment(
        self, identifier: str, *, disputed: bool | None = None, refund_status: str | None = None
    ) -> Object:
        changed = {"disputed": disputed, "refund_status": refund_status}
        return dict(self._post(f"payments/{identifier}", **changed))

    def reset(self) -> None:
        self._call("DELETE", "")

    def _post(self, path: str, **given: Any) -> Any:
        return self._call("POST", path, json.dumps(given).encode())

    def _call(self, method: str, path: str, body: bytes | None = None) -> Any:
        url = f"{self.url}/_sandbox/{path}".rstrip("/")
        request = urllib.request.Request(url, body, method=method)  # noqa: S310  (given by a developer)
        try:
            with _opener.open(request, timeout=TIMEOUT_SECONDS) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                said = json.load(error).get("error", "")
            raise Unknown(said) if error.code == 404 else ValueError(said) from None  # noqa: PLR2004
