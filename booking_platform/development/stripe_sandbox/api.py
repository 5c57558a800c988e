"""From a request to Stripe's API to the answer."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from typing import Any
from uuid import uuid4

from booking_platform.development.stripe_sandbox import errors, expansions, faults, parameters
from booking_platform.development.stripe_sandbox.account import Account, Record
from booking_platform.development.stripe_sandbox.errors import SavedError, StripeError
from booking_platform.development.stripe_sandbox.keys import Entry, Reply
from booking_platform.development.stripe_sandbox.objects import Object
from booking_platform.development.stripe_sandbox.parameters import Parameters

TEST_KEYS = ("sk_test_", "rk_test_")  # https://docs.stripe.com/keys


@dataclass
class Answer:
    """The bytes to write to the connection."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    truncated: bool = False


class Dropped(Exception):
    """The connection is to be closed without an answer."""


@dataclass
class Exchange:
    """One request and its answer, on the account that was there when the request came."""

    account: Account
    record: Record
    authorization: str | None
    id: str = field(default_factory=lambda: f"req_{uuid4().hex[:14]}")
    api_key: str = ""
    parameters: Parameters = field(default_factory=dict)
    fault: faults.Fault | None = None
    entry: Entry | None = None  # of the idempotency key

    def answer(self) -> Answer:
        """Return the answer as Stripe would write it, or as a fault spoils it.

        Raises:
            Dropped: a fault says so, or the account was reset while the request waited.
        """
        with self.account.lock:
            self.account.requests.append(self.record)
        try:
            reply = self._reply()
            self._wait(self.account.ended, self.account.latency)
            self._slow_down("slow_after")
            return self._answer(reply)
        finally:
            with self.account.lock:
                if self.entry:
                    self.entry.in_flight = False

    def sent(self, status: int | None) -> None:
        """Record the status of the answer, or None if the client didn't get the answer."""
        with self.account.lock:
            self.record.status, self.record.answered = status, status is not None

    def _reply(self) -> Reply:
        try:
            with self.account.lock:
                self._authorise()
                self._read_parameters()
                self._take_fault()
                self._claim_key()
            if self.entry and self.entry.reply:
                return self.entry.reply
            self._slow_down("slow_before")
            return self._execute()
        except StripeError as error:
            return self._refusal(error)

    def _authorise(self) -> None:
        """Accept any key of test mode: https://docs.stripe.com/api/authentication."""
        scheme, _, api_key = (self.authorization or "").partition(" ")
        self.api_key = api_key.strip()
        if scheme.lower() != "bearer" or not self.api_key:
            raise StripeError(
                "You did not provide an API key. You need to provide your API key in the "
                "Authorization header, using Bearer auth (e.g. 'Authorization: Bearer "
                "YOUR_SECRET_KEY'). See https://stripe.com/docs/api#authentication for details, "
                "or we can help at https://support.stripe.com/.",
                status=401,
            )
        if not self.api_key.startswith(TEST_KEYS):
            raise errors.invalid_api_key(self.api_key)

    def _read_parameters(self) -> None:
        posted = self.record.method == "POST"
        encoded = self.record.body if posted else self.record.query.encode("latin-1")
        self.parameters = parameters.parse(encoded)

    def _take_fault(self) -> None:
        """Take the fault that waits for this request, and raise what comes before execution."""
        method, path = self.record.method, self.record.path
        if method == "POST" and not path.startswith("/v1/refunds"):
            return
        named = self.account.named(path, self.parameters)
        fault = faults.take(self.account.faults, method, named)
        if fault is None:
            return
        self.fault, self.record.fault = fault, fault.name
        if fault.name == "drop_before":
            raise Dropped
        if fault.name in faults.BEFORE:
            raise faults.refusal(fault.name, api_key=self.api_key, key=self.record.key)

    def _claim_key(self) -> None:
        """Keep the idempotency key in flight until the answer goes out; only POST has keys."""
        record, now = self.record, self.account.now()
        if record.method == "POST" and record.key:
            claim = self.account.keys.claim
            self.entry = claim(self.api_key, record.key, record.path, self.parameters, now=now)

    def _execute(self) -> Reply:
        """Execute the request, and save the reply under the idempotency key."""
        with self.account.lock:
            if self.account.ended.is_set():
                raise Dropped
            try:
                self._fail_if(
                    "error_before", "balance_insufficient", "balance_insufficient_uncoded"
                )
                reply = Reply(200, _json(self._call_endpoint()), self.id)
                self._fail_if("error_after")
            except SavedError as error:
                reply = self._refusal(error)
            if self.entry:
                self.entry.reply = reply
            return reply

    def _fail_if(self, *names: str) -> None:
        if self.record.fault in names:
            raise faults.saved(self.record.fault)

    def _call_endpoint(self) -> Object:
        """Call the endpoint, and expand in its answer what the request names."""
        kind, call = self._endpoint()
        paths = parameters.expansions(self.parameters)
        expansions.check(kind, paths)
        return expansions.expanded(self.account, call(self.parameters), paths)

    def _endpoint(self) -> tuple[str, Callable[[Parameters], Object]]:
        """Return what the endpoint answers with, as ``expansions`` names it, and the call."""
        account = self.account
        endpoint: tuple[str, Callable[[Parameters], Object]] | None = None
        match [self.record.method, *self.record.path.strip("/").split("/")]:
            case ["POST", "v1", "payment_intents"]:
                endpoint = "payment_intent", account.new_payment
            case ["GET", "v1", "payment_intents"]:
                endpoint = "payment_intents", account.list_payments
            case ["GET", "v1", "payment_intents", identifier]:
                endpoint = "payment_intent", lambda _: account.payment(identifier)
            case ["GET", "v1", "charges", identifier]:
                endpoint = "charge", lambda _: account.charge(identifier)
            case ["GET", "v1", "charges", identifier, "refunds"]:
                endpoint = "refunds", lambda given: account.refunds_of(identifier, given)
            case ["POST", "v1", "refunds"]:
                endpoint = "refund", account.new_refund
            case ["GET", "v1", "refunds"]:
                endpoint = "refunds", account.list_refunds
            case ["GET", "v1", "refunds", identifier]:
                endpoint = "refund", lambda _: account.refund(identifier)
        if endpoint is None:
            raise StripeError(
                f"Unrecognized request URL ({self.record.method}: {self.record.path}). The sandbox has "
                "payment intents (create, retrieve, list), charges (retrieve, their refunds) and "
                "refunds (create, retrieve, list).",
                status=404,
            )
        return endpoint

    def _refusal(self, error: StripeError) -> Reply:
        return Reply(error.status, _json({"error": error.error}), self.id)

    def _slow_down(self, name: str) -> None:
        if self.fault and self.fault.name == name:
            self._wait(self.fault.over, self.fault.seconds)

    def _wait(self, end: Event, seconds: float) -> None:
        if seconds:
            end.wait(seconds)
            if self.account.ended.is_set():
                raise Dropped

    def _answer(self, reply: Reply) -> Answer:
        replayed = reply.request_id != self.id
        headers = {"Content-Type": "application/json", "Request-Id": self.id}
        if self.record.method == "POST" and self.record.key:
            headers |= {"Idempotency-Key": self.record.key, "Original-Request": reply.request_id}
        if replayed:
            headers["Idempotent-Replayed"] = "true"
        with self.account.lock:
            self.record.replayed = replayed
        match self.record.fault:
            case "drop_after":
                raise Dropped
            case "garbage":
                return Answer(200, b"<html><body>upstream</body></html>", headers)
            case "not_a_refund":
                return Answer(200, b"{}", headers)
        return Answer(reply.status, reply.body, headers, self.record.fault == "truncated")


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode()
