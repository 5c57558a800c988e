"""The control of a sandbox over HTTP, for other processes: JSON in, JSON out."""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from payments.sandbox.state import Unknown

if TYPE_CHECKING:
    from payments.sandbox.sandbox import Sandbox

ENCODING = "latin-1"  # gives each byte of a request's body one character of JSON


def control(sandbox: "Sandbox", method: str, path: str, body: bytes) -> tuple[int, Any]:
    """Do what is asked; 400 for what can't be, 404 for what isn't there."""
    try:
        given = json.loads(body or b"{}")
        if not isinstance(given, dict):
            raise TypeError("the body must be a JSON object")
        return 200, _done(sandbox, method, path, given)
    except Unknown as error:
        return 404, {"error": str(error)}
    except (TypeError, ValueError) as error:  # a TypeError names the argument that isn't one
        return 400, {"error": str(error)}


def _done(sandbox: "Sandbox", method: str, path: str, given: dict[str, Any]) -> Any:
    match [method, *path.strip("/").split("/")[1:]]:
        case ["GET", subject] if subject in SHOWN:
            return SHOWN[subject](sandbox)
        case ["POST", "payments"]:
            return {"id": sandbox.payment(**given)}
        case ["POST", "payments", identifier]:
            return sandbox.change_payment(identifier, **given)
        case ["POST", "refunds", identifier]:
            return sandbox.change_refund(identifier, **given)
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
    return {}


SHOWN: dict[str, Callable[["Sandbox"], Any]] = {
    "refunds": lambda sandbox: sandbox.refunds,
    "requests": lambda sandbox: [
        {**asdict(record), "body": record.body.decode(ENCODING)} for record in sandbox.requests
    ],
    "webhooks": lambda sandbox: {"sent": sandbox.webhooks_sent},
}
