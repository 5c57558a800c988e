"""The control of a sandbox over HTTP: JSON in, JSON out; for the server, and for other processes."""

import json
import urllib.error
import urllib.request
from dataclasses import asdict
from typing import Any

from booking_platform.development.stripe_sandbox.account import Record
from booking_platform.development.stripe_sandbox.objects import Object
from booking_platform.development.stripe_sandbox.sandbox import Sandbox, Unknown

ENCODING = "latin-1"  # turns each byte of a request's body into one character of JSON
TIMEOUT_SECONDS = 30

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine


def control(sandbox: Sandbox, method: str, path: str, body: bytes) -> tuple[int, Any]:
    """Call the sandbox, and return status and answer: 400 for a wrong body, 404 for no object."""
    try:
        given = json.loads(body or b"{}")
        if not isinstance(given, dict):
            raise TypeError("the body must be a JSON object")
        return 200, _call(sandbox, method, path, given)
    except Unknown as error:
        return 404, {"error": str(error)}
    except (TypeError, ValueError) as error:  # a TypeError names the unknown argument
        return 400, {"error": str(error)}


def _call(sandbox: Sandbox, method: str, path: str, given: dict[str, Any]) -> Any:
    answer: Any = {}
    match [method, *path.strip("/").split("/")[1:]]:
        case ["GET", "refunds"]:
            answer = sandbox.refunds
        case ["GET", "requests"]:
            records = [asdict(record) for record in sandbox.requests]
            answer = [{**record, "body": record["body"].decode(ENCODING)} for record in records]
        case ["GET", "webhooks"]:
            answer = {"sent": sandbox.webhooks_sent}
        case ["POST", "payments"]:
            answer = {"id": sandbox.payment(**given)}
        case ["POST", "payments", identifier]:
            answer = sandbox.change_payment(identifier, **given)
        case ["POST", "refunds", identifier]:
            answer = sandbox.change_refund(identifier, **given)
        case ["POST", "faults"]:
            sandbox.fail(**given)
        case ["POST", "clock"]:
            sandbox.advance(**{"seconds": given.pop("advance", None), **given})
        case ["DELETE", "faults"]:
            sandbox.clear_faults()
        case ["DELETE"]:
            sandbox.reset()
        case _:
            raise Unknown(f"The sandbox has no {method} {path}.")
    return answer


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
            raise Unknown(said) if error.code == 404 else ValueError(said) from None  # noqa: PLR2004
