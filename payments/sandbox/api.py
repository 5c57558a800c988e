"""From a request to Stripe's API to its answer: who asks, under which key, and what goes wrong."""

import json
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from payments.sandbox import parameters
from payments.sandbox.errors import (
    StripeError,
    invalid,
    invalid_api_key,
    no_api_key,
)
from payments.sandbox.faults import AFTER, BEFORE, Fault, Faults, refusal, unknown_error
from payments.sandbox.keys import LONGEST, Entry, Keys, Reply
from payments.sandbox.parameters import Parameters
from payments.sandbox.state import Account

TEST_KEYS = ("sk_test_", "rk_test_")  # https://docs.stripe.com/keys


@dataclass
class Record:
    """A request as it came, without its credentials, and what became of it."""

    method: str
    path: str
    query: str
    key: str | None  # Idempotency-Key
    body: bytes
    status: int | None = None  # None while, or because, it was never answered
    replayed: bool = False
    fault: str | None = None
    answered: bool = False


@dataclass
class Answer:
    """What is written to the connection."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    truncated: bool = False


class Interrupted(Exception):
    """The sandbox was reset or stopped while the request waited."""


class Api:
    """Stripe's API on an account; a new one after each reset, so that no old request writes to it."""

    def __init__(self, account: Account, *, now: Callable[[], int], latency: float) -> None:
        self.account, self.faults, self.keys = account, Faults(), Keys(now=now)
        self.lock = threading.RLock()
        self._latency = latency
        self._interrupted = threading.Event()
        self._records: list[Record] = []

    def interrupt(self) -> None:
        """End every wait at once; those requests are never answered."""
        self._interrupted.set()

    @property
    def requests(self) -> list[Record]:
        with self.lock:
            return [Record(**vars(record)) for record in self._records]

    def answered(self, record: Record, status: int | None) -> None:
        with self.lock:
            record.status, record.answered = status, status is not None

    def answer(self, record: Record, authorization: str | None) -> Answer | None:
        """Answer a request as Stripe does, or not at all (None: close the connection)."""
        with self.lock:
            self._records.append(record)
        request = Request(record, f"req_{uuid4().hex[:14]}", authorization)
        try:
            with ExitStack() as until_answered:
                return self._answer(request, until_answered)
        except Interrupted:
            return None

    def _answer(self, request: "Request", until_answered: ExitStack) -> Answer | None:
        fault = None
        try:
            request.authorise()
            request.read()
            fault = self._fault(request)
            if fault and fault.name == "drop_before":
                return None
            reply, replayed = self._reply(request, fault, until_answered)
        except StripeError as error:
            reply, replayed = _error(error, request.id), False
        self._wait(self._latency)
        if fault and fault.name == "slow_after":
            self._wait(fault.seconds)
        with self.lock:
            request.record.replayed = replayed
        return _spoilt(request.answer(reply, replayed), fault)

    def _fault(self, request: "Request") -> Fault | None:
        if not request.record.path.startswith("/v1/refunds"):
            return None
        with self.lock:
            payment = self.account.payment_named(request.record.path, request.parameters)
            fault = self.faults.take(request.record.method, payment)
            request.record.fault = fault.name if fault else None
        return fault

    def _reply(
        self, request: "Request", fault: Fault | None, until_answered: ExitStack
    ) -> tuple[Reply, bool]:
        """Replay what the key remembers, or execute; says which."""
        if fault and fault.name in BEFORE:
            raise refusal(fault.name, api_key=request.api_key, key=request.record.key)
        entry = self._claimed(request, until_answered)
        if entry and entry.reply:
            return entry.reply, True
        if fault and fault.name == "slow_before":
            self._wait(fault.seconds)
        with self.lock:
            if self._interrupted.is_set():
                raise Interrupted
            try:
                reply = Reply(200, _json(self._execute(request, fault)), request.id)
            except StripeError as error:
                if not error.saved:
                    raise
                reply = _error(error, request.id)
            if entry:
                entry.reply = reply
        return reply, False

    def _claimed(self, request: "Request", until_answered: ExitStack) -> Entry | None:
        """Keep the key in flight until the answer goes out; only POST has keys."""
        record = request.record
        if record.method != "POST" or not record.key:
            return None
        if len(record.key) > LONGEST:
            raise invalid(f"Idempotency keys can be at most {LONGEST} characters long.")
        with self.lock:
            entry = self.keys.claim(request.api_key, record.key, record.path, request.parameters)
        until_answered.callback(self._release, entry)
        return entry

    def _release(self, entry: Entry) -> None:
        with self.lock:
            self.keys.release(entry)

    def _execute(self, request: "Request", fault: Fault | None) -> Any:
        if fault and fault.name == "error_before":
            raise unknown_error()
        result = self._endpoint(request.record.method, request.record.path, request.parameters)
        if fault and fault.name == "error_after":
            raise unknown_error()
        return result

    def _endpoint(self, method: str, path: str, given: Parameters) -> Any:
        match [method, *path.strip("/").split("/")]:
            case ["POST", "v1", "payment_intents"]:
                return self.account.new_payment(given)
            case ["GET", "v1", "payment_intents"]:
                return self.account.payments(given)
            case ["GET", "v1", "payment_intents", identifier]:
                return self.account.payment(identifier)
            case ["POST", "v1", "refunds"]:
                return self.account.new_refund(given)
            case ["GET", "v1", "refunds"]:
                return self.account.list_refunds(given)
            case ["GET", "v1", "refunds", identifier]:
                return self.account.refund(identifier)
        raise StripeError(
            404,
            f"Unrecognized request URL ({method}: {path}). The sandbox has payment intents "
            "(create, retrieve, list) and refunds (create, retrieve, list).",
        )

    def _wait(self, seconds: float) -> None:
        if seconds and self._interrupted.wait(seconds):
            raise Interrupted


@dataclass
class Request:
    """A request while it is answered."""

    record: Record
    id: str
    authorization: str | None
    api_key: str = ""
    parameters: Parameters = field(default_factory=dict)

    def authorise(self) -> None:
        """Take any key of test mode: https://docs.stripe.com/api/authentication."""
        scheme, _, api_key = (self.authorization or "").partition(" ")
        self.api_key = api_key.strip()
        if scheme.lower() != "bearer" or not self.api_key:
            raise no_api_key()
        if not self.api_key.startswith(TEST_KEYS):
            raise invalid_api_key(self.api_key)

    def read(self) -> None:
        """Read the parameters: of a POST from the body, of a GET from the query."""
        posted = self.record.method == "POST"
        self.parameters = parameters.parse(
            self.record.body if posted else self.record.query.encode("latin-1")
        )

    def answer(self, reply: Reply, replayed: bool) -> Answer:
        headers = {"Content-Type": "application/json", "Request-Id": self.id}
        if self.record.method == "POST" and self.record.key:
            headers |= {"Idempotency-Key": self.record.key, "Original-Request": reply.request_id}
        if replayed:
            headers["Idempotent-Replayed"] = "true"
        return Answer(reply.status, reply.body, headers)


def _spoilt(answer: Answer, fault: Fault | None) -> Answer | None:
    if fault is None or fault.name not in AFTER:
        return answer
    match fault.name:
        case "drop_after":
            return None
        case "garbage":
            answer.status, answer.body = 200, b"<html><body>upstream</body></html>"
        case "truncated":
            answer.truncated = True
        case "not_a_refund":
            answer.status, answer.body = 200, b"{}"
    return answer


def _error(error: StripeError, request_id: str) -> Reply:
    return Reply(error.status, _json({"error": error.error}), request_id)


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode()
