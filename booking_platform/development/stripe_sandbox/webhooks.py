"""Webhooks: signed as Stripe signs them, sent in the background."""

import copy
import hashlib
import hmac
import json
import queue
import threading
import time
import urllib.error
import urllib.request
from typing import Any

import structlog

from booking_platform.development.stripe_sandbox.objects import Object, new_id

log = structlog.get_logger(__name__)

API_VERSION = "2026-10-28.endive"
# https://docs.stripe.com/changelog/acacia/2024-10-28/refund-webhook-update: before, the refunds of
# charges had no events of their own but this one.
FIRST_WITH_REFUND_EVENTS = "2024-10-28"
OLD_KINDS = {"refund.updated": "charge.refund.updated", "charge.refunded": "charge.refunded"}

ATTEMPTS = 3  # the first and two more
PAUSE_SECONDS = 0.1  # between two attempts
TIMEOUT_SECONDS = 10

# Straight to the endpoint: it is on this machine, where a proxy of the environment isn't.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def signature(secret: str, body: bytes, *, timestamp: int) -> str:
    """Sign a body: https://docs.stripe.com/webhooks#verify-manually."""
    signed = f"{timestamp}.".encode() + body
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


def event(kind: str, about: Object, *, former: Object, now: int, version: str) -> Object:
    """Return the object of https://docs.stripe.com/api/events/object."""
    data: dict[str, Any] = {"object": about}
    if former:
        data["previous_attributes"] = former
    return {
        "id": new_id("evt"),
        "object": "event",
        "api_version": version,
        "created": now,
        "data": data,
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": kind,
    }


class Webhooks:
    """A thread that sends events to a URL, if there is one; undelivered events are only logged.

    They are events of an API version, as an endpoint is bound to one:
    https://docs.stripe.com/webhooks/versioning.

    Raises:
        ValueError: there is a URL but no secret to sign with, or the URL is not HTTP.
    """

    def __init__(self, url: str, secret: str, version: str) -> None:
        if url and not secret:
            raise ValueError("webhook_secret is missing: webhooks are signed with it")
        if url and not url.startswith(("http://", "https://")):
            raise ValueError(
                f"webhook_url is {url!r}: give one that begins with http:// or https://"
            )
        self.sent = 0  # answered with a 2xx
        self._url, self._secret, self._version = url, secret, version
        self._waiting: queue.SimpleQueue[Object | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._send_all, daemon=True, name="webhooks")
        self._thread.start()

    def announce(self, kind: str, about: Object, *, former: Object, now: int) -> None:
        """Send an event soon, after those that wait already, if the API version has such a one.

        ``former`` has the values that the object's change replaced.
        """
        sent_as = OLD_KINDS.get(kind) if self._version < FIRST_WITH_REFUND_EVENTS else kind
        if self._url and sent_as:
            about = copy.deepcopy(about)
            self._waiting.put(event(sent_as, about, former=former, now=now, version=self._version))

    def close(self) -> None:
        """Stop the thread, and drop the events that still wait."""
        self._stopped.set()
        self._waiting.put(None)
        self._thread.join(TIMEOUT_SECONDS)

    def _send_all(self) -> None:
        while (event := self._waiting.get()) is not None and not self._stopped.is_set():
            self._send(event)

    def _send(self, event: Object) -> None:
        body = json.dumps(event).encode()
        for _ in range(ATTEMPTS):
            try:
                self._post(body)
            except OSError as error:  # all of urllib's errors are
                problem = repr(error)
                if self._stopped.wait(PAUSE_SECONDS):
                    return
            else:
                self.sent += 1
                return
        log.warning("A webhook was not delivered", event_type=event["type"], error=problem)

    def _post(self, body: bytes) -> None:
        signed = signature(self._secret, body, timestamp=int(time.time()))
        headers = {"Content-Type": "application/json; charset=utf-8", "Stripe-Signature": signed}
        request = urllib.request.Request(self._url, body, headers)  # noqa: S310  (checked above)
        try:
            _opener.open(request, timeout=TIMEOUT_SECONDS).close()
        except urllib.error.HTTPError as refusal:
            refusal.close()  # the error is the answer too, and holds its connection
            raise
