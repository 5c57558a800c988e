"""Stripe's refusals, in Stripe's words.

Shape and types: https://docs.stripe.com/api/errors; codes: https://docs.stripe.com/error-codes.
"""

import re
from typing import Any


class StripeError(Exception):
    """Answered with this status and error object; ``saved`` says whether a key remembers it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        saved: bool = False,
    ) -> None:
        super().__init__(message)
        self.status, self.saved = status, saved
        self.error: dict[str, Any] = {"message": message, "type": kind}
        if code:
            self.error["code"] = code
            self.error["doc_url"] = f"https://stripe.com/docs/error-codes/{code.replace('_', '-')}"
        if param:
            self.error["param"] = param


def invalid(message: str, *, code: str | None = None, param: str | None = None) -> StripeError:
    """Refuse parameters before execution begins; the key stays free for a corrected request.

    https://docs.stripe.com/api/idempotent_requests: results are saved only once the endpoint began
    to execute, not if parameters failed validation.
    """
    return StripeError(400, message, code=code, param=param)


def refused(message: str, *, code: str | None = None, param: str | None = None) -> StripeError:
    """Refuse for a reason of business: execution had begun, so the key remembers it."""
    return StripeError(400, message, code=code, param=param, saved=True)


def missing(kind: str, identifier: str, param: str) -> StripeError:
    """Say that an object doesn't exist. Taken for a validation error, which no key remembers."""
    message = f"No such {kind}: '{identifier}'"
    return StripeError(404, message, code="resource_missing", param=param)


def invalid_api_key(api_key: str) -> StripeError:
    return StripeError(401, f"Invalid API Key provided: {masked(api_key)}")


def no_api_key() -> StripeError:
    return StripeError(
        401,
        "You did not provide an API key. You need to provide your API key in the Authorization "
        "header, using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY'). See "
        "https://stripe.com/docs/api#authentication for details, or we can help at "
        "https://support.stripe.com/.",
    )


def forbidden(api_key: str) -> StripeError:
    return StripeError(
        403,
        f"The provided key '{masked(api_key)}' does not have the required permissions for this "
        "endpoint. Having the 'rak_charge_write' permission would allow this request to continue.",
    )


def rate_limited() -> StripeError:
    """https://docs.stripe.com/rate-limits."""
    return StripeError(429, "Request rate limit exceeded.", code="rate_limit")


def key_in_use(key: str | None) -> StripeError:
    """https://docs.stripe.com/error-codes#idempotency-key-in-use."""
    return StripeError(
        409,
        "There is currently another in-progress request using this Idempotent Key (that probably "
        "means you submitted twice, and the other request is still going through): "
        f"{key}. Please try again later.",
        kind="idempotency_error",
        code="idempotency_key_in_use",
    )


def other_parameters(key: str) -> StripeError:
    return StripeError(
        400,
        "Keys for idempotent requests can only be used with the same parameters they were first "
        f"used with. Try using a key other than '{key}' if you meant to execute a different "
        "request.",
        kind="idempotency_error",
    )


def other_endpoint(key: str, endpoint: str, first: str) -> StripeError:
    """Worded as quoted in https://github.com/stripe/stripe-ruby/issues/598: new path, first path."""
    return StripeError(
        400,
        "Keys for idempotent requests can only be used for the same endpoint they were first used "
        f"for ('{endpoint}' vs '{first}'). Try using a key other than '{key}' if you meant to "
        "execute a different request.",
        kind="idempotency_error",
    )


def failed(status: int, message: str, *, saved: bool = False) -> StripeError:
    """Fail on Stripe's side: https://docs.stripe.com/error-low-level#server-errors."""
    return StripeError(status, message, kind="api_error", saved=saved)


def masked(api_key: str) -> str:
    """Hide a key but for its kind and its last four characters, as Stripe's answers do."""
    kind = re.match(r"(?:[a-z]+_(?:test|live)_)?", api_key)
    prefix = kind.group() if kind else ""
    secret = api_key[len(prefix) :]
    shown = secret[-4:] if len(secret) > 4 else ""  # noqa: PLR2004
    return prefix + "*" * (len(secret) - len(shown)) + shown
