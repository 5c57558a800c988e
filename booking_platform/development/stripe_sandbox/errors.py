"""Stripe's refusals, in Stripe's words.

Shape and types: https://docs.stripe.com/api/errors; codes: https://docs.stripe.com/error-codes.
"""

import re
from typing import Any


class StripeError(Exception):
    """An answer other than 200. The idempotency key stays free for a corrected request.

    https://docs.stripe.com/api/idempotent_requests: results are saved only once the endpoint began
    to execute, not if parameters failed validation.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error: dict[str, Any] = {"message": message, "type": kind}
        if code:
            self.error["code"] = code
            self.error["doc_url"] = f"https://stripe.com/docs/error-codes/{code.replace('_', '-')}"
        if param:
            self.error["param"] = param


class SavedError(StripeError):
    """An answer other than 200 after execution began. The idempotency key remembers the answer."""


def missing(kind: str, identifier: str, param: str) -> StripeError:
    """Return the error for an unknown object. It counts as validation, which no key remembers."""
    message = f"No such {kind}: '{identifier}'"
    return StripeError(message, status=404, code="resource_missing", param=param)


def insufficient_balance(*, code: bool = True) -> SavedError:
    """Return the refusal of a refund that the account's balance does not cover.

    The message, and that there may be no code, as quoted in
    https://github.com/Automattic/woocommerce-payments/issues/10025; the code is of
    https://docs.stripe.com/error-codes#balance-insufficient.
    """
    message = "Insufficient funds in your Stripe balance to refund this amount."
    error = SavedError(message, code="balance_insufficient" if code else None)
    error.error["message_code"] = "insufficient_balance_for_refund"
    return error


def invalid_api_key(api_key: str) -> StripeError:
    return StripeError(f"Invalid API Key provided: {masked(api_key)}", status=401)


def key_in_use(key: str | None) -> StripeError:
    """Return the error of https://docs.stripe.com/error-codes#idempotency-key-in-use."""
    return StripeError(
        "There is currently another in-progress request using this Idempotent Key (that probably "
        "means you submitted twice, and the other request is still going through): "
        f"{key}. Please try again later.",
        status=409,
        kind="idempotency_error",
        code="idempotency_key_in_use",
    )


def masked(api_key: str) -> str:
    """Hide an API key except its kind and its last four characters, as Stripe's answers do."""
    kind = re.match(r"(?:[a-z]+_(?:test|live)_)?", api_key)
    prefix = kind.group() if kind else ""
    secret = api_key[len(prefix) :]
    shown = secret[-4:] if len(secret) > 4 else ""  # noqa: PLR2004
    return prefix + "*" * (len(secret) - len(shown)) + shown
