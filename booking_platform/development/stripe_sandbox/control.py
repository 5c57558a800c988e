"""The control of a sandbox over HTTP, for other processes: JSON in, JSON out."""

import json
from dataclasses import asdict
from typing import Any

from booking_platform.development.stripe_sandbox.sandbox import Sandbox, Unknown

ENCODING = "latin-1"  # turns each byte of a request's body into one character of JSON


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
        case ["POST", "balance"]:
            sandbox.set_balance(**given)
        case ["POST", "clock"]:
            sandbox.advance(**{"seconds": given.pop("advance", None), **given})
        case ["DELETE", "faults"]:
            sandbox.clear_faults()
        case ["DELETE"]:
            sandbox.reset()
        case _:
            raise Unknown(f"The sandbox has no {method} {path}.")
    return answer
