"""What each answer proves. A bare server says whatever the test wants, over real HTTP."""

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import pytest

from payments import stripe_gateway
from payments.answers import (
    OtherParameters,
    StripePayment,
    StripeRefund,
    StripeRefusal,
    Unknown,
)

REQUEST = {"payment_intent": "pi_1", "amount": 100, "metadata": {"idempotency_key": "k"}}
REFUND = {
    "id": "re_1",
    "object": "refund",
    "amount": 100,
    "created": 1_795_000_000,
    "currency": "eur",
    "status": "succeeded",
    "payment_intent": "pi_1",
    "metadata": {"idempotency_key": "k"},
    "destination_details": {"card": {"reference": "4242424242424242"}},
}


class Server(ThreadingHTTPServer):
    """Answers every request with the same status, headers and bytes, and keeps what came."""

    status = 200
    body = b"{}"
    headers: dict[str, str]

    def __init__(self) -> None:
        self.headers = {}
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.next: list[bytes] = []  # said before the body
        super().__init__(("127.0.0.1", 0), Handler)

    def says(self, status: int, body: object, **headers: str) -> None:
        self.status, self.headers = status, headers
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()

    def says_in_turn(self, *bodies: object) -> None:
        *first, last = bodies
        self.says(200, last)
        self.next = [json.dumps(body).encode() for body in first]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append((self.path, dict(self.headers), sent))
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name.replace("_", "-"), value)
        body = self.server.next.pop(0) if self.server.next else self.server.body
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST  # noqa: N815  (named by http.server)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def stripe(settings: Any) -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        settings.STRIPE_API_BASE = f"http://127.0.0.1:{server.server_port}"
        settings.STRIPE_SECRET_KEY = "sk_test_abc123"
        yield server
        server.shutdown()


def error(kind: str = "invalid_request_error", **fields: str) -> dict[str, Any]:
    return {"error": {"type": kind, "message": "No.", **fields}}


class TestSend:
    def test_it_gives_a_refund_without_where_the_money_goes(self, stripe: Server) -> None:
        stripe.says(200, REFUND)
        answer = stripe_gateway.send(REQUEST, "k")
        assert isinstance(answer, StripeRefund)
        assert (answer.refund_id, answer.amount_minor, answer.key) == ("re_1", 100, "k")
        assert "4242" not in repr(answer)

    def test_it_sends_the_same_bytes_under_the_same_key_every_time(self, stripe: Server) -> None:
        stripe.says(500, error("api_error"))
        for _ in range(3):
            stripe_gateway.send(REQUEST, "k")
        bodies = {body for _, _, body in stripe.requests}
        keys = {headers["Idempotency-Key"] for _, headers, _ in stripe.requests}
        versions = {headers["Stripe-Version"] for _, headers, _ in stripe.requests}
        assert len(stripe.requests) == 3  # and the SDK retried nothing itself
        assert len(bodies) == 1
        assert keys == {"k"}
        assert versions == {stripe_gateway.API_VERSION}

    @pytest.mark.parametrize(
        ("status", "body", "headers"),
        [
            (401, error(), {}),
            (403, error(), {}),
            (409, error("idempotency_error", code="idempotency_key_in_use"), {}),
            (400, error("idempotency_error", code="idempotency_key_in_use"), {}),
            (400, error(code="lock_timeout"), {}),
            (400, error(code="rate_limit"), {}),
            (200, REFUND | {"id": 5}, {}),
            (200, REFUND | {"created": 10**30}, {}),
            (424, error("api_error"), {}),
            (429, error(code="rate_limit"), {}),
            (500, error("api_error"), {}),
            (502, b"<html>Bad gateway</html>", {}),
            (400, b"<html>Bad request</html>", {}),
            (404, b"<html>Not found</html>", {}),
            (404, {"error": "not here"}, {}),
            (400, {"oops": 1}, {}),
            (200, b"", {}),
            (200, b"<html>Welcome</html>", {}),
            (200, b"\xff\xfe", {}),
            (200, {}, {}),
            (200, [], {}),
            (200, None, {}),
            (200, "refund", {}),
            (200, {"object": "refund", "id": "re_1", "amount": "100"}, {}),
            (200, {"object": "charge", "id": "ch_1", "amount": 100, "created": 1}, {}),
            (200, {"object": "refund", "id": "re_1", "amount": 100}, {}),
            (200, {"object": "refund", "id": "re_1", "amount": True, "created": 1}, {}),
            (302, b"", {"Location": "http://127.0.0.1:9/"}),
            (307, REFUND, {"Location": "/elsewhere"}),
        ],
    )
    def test_what_proves_nothing_is_unknown(
        self, stripe: Server, status: int, body: object, headers: dict[str, str]
    ) -> None:
        stripe.says(status, body, **headers)
        answer = stripe_gateway.send(REQUEST, "k")
        assert isinstance(answer, Unknown)
        assert not answer.repeats
        assert answer.why

    @pytest.mark.parametrize("status", [400, 402, 404])
    def test_what_stripe_itself_refuses_is_refused(self, stripe: Server, status: int) -> None:
        stripe.says(status, error(code="charge_already_refunded"))
        assert stripe_gateway.send(REQUEST, "k") == StripeRefusal("charge_already_refunded", "No.")

    def test_other_parameters_are_told_from_refusals(self, stripe: Server) -> None:
        stripe.says(400, error("idempotency_error"))
        assert stripe_gateway.send(REQUEST, "k") == OtherParameters("No.")

    def test_a_server_error_that_is_replayed_will_never_change(self, stripe: Server) -> None:
        stripe.says(500, error("api_error"), Idempotent_Replayed="true")
        answer = stripe_gateway.send(REQUEST, "k")
        assert isinstance(answer, Unknown)
        assert answer.repeats

    def test_a_redirect_is_not_followed(self, stripe: Server) -> None:
        stripe.says(307, REFUND, Location="/elsewhere")
        stripe_gateway.send(REQUEST, "k")
        assert [path for path, _, _ in stripe.requests] == ["/v1/refunds"]

    def test_what_no_database_stores_is_replaced(self, stripe: Server) -> None:
        odd = {"reason": "a\0b", "failure_reason": "\ud800", "pending_reason": [{"id": 1}]}
        stripe.says(200, REFUND | odd | {"status": "x" * 999, "charge": {"number": "4242"}})
        answer = stripe_gateway.send(REQUEST, "k")
        assert isinstance(answer, StripeRefund)
        assert answer.record["reason"] == "a\ufffdb"
        assert answer.record["failure_reason"] == "?"
        assert answer.record["pending_reason"] is None
        assert answer.record["charge"] is None
        assert len(answer.status) == 50

    def test_an_expanded_object_leaves_its_id_alone(self, stripe: Server) -> None:
        stripe.says(200, REFUND | {"charge": {"id": "ch_1", "number": "4242"}})
        answer = stripe_gateway.send(REQUEST, "k")
        assert isinstance(answer, StripeRefund)
        assert answer.record["charge"] == "ch_1"

    @pytest.mark.parametrize("metadata", [{"id": "order-7", "name": "Ann"}, [], "x", None])
    def test_metadata_of_others_are_read_and_not_kept(self, stripe: Server, metadata: Any) -> None:
        stripe.says(200, REFUND | {"metadata": metadata})
        answer = stripe_gateway.send(REQUEST, "k")
        assert isinstance(answer, StripeRefund)
        assert answer.record["metadata"] == {"booking_id": "", "idempotency_key": ""}

    def test_an_answer_larger_than_memory_takes_is_unknown(
        self, stripe: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stripe_gateway, "LARGEST_ANSWER", 1000)
        stripe.says(200, REFUND | {"description": "x" * 2000})
        assert isinstance(stripe_gateway.send(REQUEST, "k"), Unknown)

    def test_an_answer_that_drips_is_unknown(
        self, stripe: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stripe_gateway, "LONGEST_ANSWER", 0.0)
        stripe.says(200, REFUND)
        assert isinstance(stripe_gateway.send(REQUEST, "k"), Unknown)

    def test_no_server_is_unknown(self, stripe: Server, settings: Any) -> None:
        settings.STRIPE_API_BASE = "http://127.0.0.1:9"
        answer = stripe_gateway.send(REQUEST, "k")
        assert answer == Unknown("no answer from Stripe: ConnectionError", reached=False)

    @pytest.mark.parametrize(
        ("status", "body", "reached"),
        [
            (401, error(), False),
            (403, error(), False),
            (429, error(code="rate_limit"), False),
            (429, error(code="lock_timeout"), True),
            (400, error(code="rate_limit"), True),
            (409, error("idempotency_error", code="idempotency_key_in_use"), True),
            (424, error("api_error"), True),
            (500, error("api_error"), True),
            (503, error("api_error"), True),
            (200, b"", True),
        ],
    )
    def test_only_what_is_proven_was_not_executed(
        self, stripe: Server, status: int, body: object, reached: bool
    ) -> None:
        stripe.says(status, body)
        answer = stripe_gateway.send(REQUEST, "k")
        assert isinstance(answer, Unknown)
        assert answer.reached is reached

    def test_a_connection_that_breaks_may_have_reached_stripe(self, settings: Any) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            settings.STRIPE_API_BASE = f"http://127.0.0.1:{server.getsockname()[1]}"

            def hang_up() -> None:
                server.accept()[0].close()

            threading.Thread(target=hang_up, daemon=True).start()
            answer = stripe_gateway.send(REQUEST, "k")
        assert isinstance(answer, Unknown)
        assert answer.reached

    def test_keys_and_card_numbers_are_not_repeated(
        self, stripe: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("DEBUG")
        message = "Invalid API Key provided: Bearer_sk_test_abc123, card4242.4242.4242.4242"
        for status in (400, 401):
            stripe.says(status, {"error": {"type": "invalid_request_error", "message": message}})
            said = repr(stripe_gateway.send(REQUEST, "k")) + caplog.text
            assert "Invalid API Key provided" in said
            assert "abc123" not in said
            assert "4242" not in said


LIST = {"object": "list", "data": [REFUND], "has_more": False, "url": "/x"}
CHARGE = {
    "id": "ch_1",
    "object": "charge",
    "amount": 900,
    "amount_captured": 800,
    "amount_refunded": 100,
    "captured": True,
    "currency": "eur",
    "metadata": {},
    "payment_intent": "pi_1",
    "refunds": LIST,
    "status": "succeeded",
}
INTENT = {
    "id": "pi_1",
    "object": "payment_intent",
    "amount": 900,
    "amount_received": 800,
    "currency": "EUR",
    "latest_charge": CHARGE,
    "metadata": {"booking_id": "BK-1"},
    "status": "succeeded",
}


def looked(payment_id: str = "pi_1") -> StripePayment:
    payment = stripe_gateway.look(payment_id)
    assert isinstance(payment, StripePayment), payment
    return payment


class TestLook:
    def test_one_request_is_enough(self, stripe: Server) -> None:
        stripe.says(200, INTENT)
        payment = looked()
        assert payment.ids == {"pi_1", "ch_1"}
        assert (payment.status, payment.currency, payment.booking_id) == (
            "succeeded",
            "eur",
            "BK-1",
        )
        assert (payment.received_minor, payment.refunded_minor) == (800, 100)
        assert [one.refund_id for one in payment.refunds] == ["re_1"]
        [(path, _, _)] = stripe.requests
        assert unquote(path) == "/v1/payment_intents/pi_1?expand[0]=latest_charge.refunds"

    @pytest.mark.parametrize("payment", ["ch_1", "py_1"])
    def test_a_charge_is_looked_at_as_such(self, stripe: Server, payment: str) -> None:
        stripe.says(200, CHARGE | {"id": payment, "payment_intent": INTENT})
        found = looked(payment)
        assert found.ids == {"pi_1", payment}
        assert (found.received_minor, found.booking_id) == (800, "BK-1")
        [(path, _, _)] = stripe.requests
        asked = f"/v1/charges/{payment}?expand[0]=refunds&expand[1]=payment_intent"
        assert unquote(path) == asked

    def test_a_charge_may_have_no_intent(self, stripe: Server) -> None:
        stripe.says(200, CHARGE | {"payment_intent": None, "metadata": {"bookingId": "BK-2"}})
        found = looked("ch_1")
        assert found.ids == {"ch_1"}
        assert found.booking_id == "BK-2"

    @pytest.mark.parametrize(
        ("fields", "received"),
        [
            ({"amount_received": 0, "status": "requires_capture"}, 0),
            ({"amount_received": None}, 900),
            ({"amount_received": None, "status": "processing"}, 0),
            ({"amount_received": "800", "amount": "900"}, 0),
        ],
    )
    def test_what_was_received_is_read_with_care(
        self, stripe: Server, fields: dict[str, Any], received: int
    ) -> None:
        stripe.says(200, INTENT | fields)
        assert looked().received_minor == received

    @pytest.mark.parametrize(
        ("of_intent", "of_charge", "named"),
        [
            ({"booking_id": "A", "bookingId": "B"}, {"booking_id": "C"}, "A"),
            ({"bookingId": "B"}, {"booking_id": "C"}, "B"),
            ({"booking_id": ""}, {"booking_id": "C"}, "C"),
            ({"order": "7"}, {}, ""),
            (None, "x", ""),
            ({"booking_id": "\ud800\0"}, {}, "?\ufffd"),
        ],
    )
    def test_the_metadata_may_name_the_booking(
        self, stripe: Server, of_intent: Any, of_charge: Any, named: str
    ) -> None:
        charge = CHARGE | {"metadata": of_charge}
        stripe.says(200, INTENT | {"metadata": of_intent, "latest_charge": charge})
        assert looked().booking_id == named

    def test_a_refund_that_came_back_is_not_with_the_customer(self, stripe: Server) -> None:
        back = LIST | {
            "data": [REFUND | {"status": "failed"}, REFUND | {"id": "re_2", "amount": 7}]
        }
        charge = CHARGE | {"refunds": back, "amount_refunded": None}
        stripe.says(200, INTENT | {"latest_charge": charge})
        assert looked().refunded_minor == 7

    @pytest.mark.parametrize(
        "charge",
        [
            "ch_1",
            None,
            {name: value for name, value in CHARGE.items() if name != "refunds"},
            CHARGE | {"refunds": LIST | {"has_more": True}},
            CHARGE | {"refunds": LIST | {"data": [{"id": 1}]}},
        ],
    )
    def test_refunds_that_are_not_in_the_answer_are_listed(
        self, stripe: Server, charge: Any
    ) -> None:
        stripe.says_in_turn(INTENT | {"latest_charge": charge}, LIST)
        assert [one.refund_id for one in looked().refunds] == ["re_1"]
        assert stripe.requests[1][0] == "/v1/refunds?payment_intent=pi_1&limit=100"

    def test_a_list_that_fails_leaves_the_look_unknown(self, stripe: Server) -> None:
        stripe.says_in_turn(INTENT | {"latest_charge": "ch_1"}, {})
        assert isinstance(stripe_gateway.look("pi_1"), Unknown)

    def test_a_list_without_end_is_unknown(self, stripe: Server) -> None:
        page = LIST | {"has_more": True}
        stripe.says_in_turn(INTENT | {"latest_charge": "ch_1"}, page)
        assert isinstance(stripe_gateway.look("pi_1"), Unknown)
        assert len(stripe.requests) == 3  # the second page was the first again

    @pytest.mark.parametrize(
        "body",
        [
            {},
            [],
            None,
            REFUND,
            CHARGE,
            INTENT | {"id": "pi_2"},
            INTENT | {"currency": None},
            {"object": "list", "data": [], "has_more": False},
        ],
    )
    def test_what_is_not_the_payment_is_unknown(self, stripe: Server, body: object) -> None:
        stripe.says(200, body)
        assert isinstance(stripe_gateway.look("pi_1"), Unknown)

    def test_a_payment_that_is_not_there_is_refused(self, stripe: Server) -> None:
        stripe.says(404, error(code="resource_missing"))
        assert stripe_gateway.look("pi_1") == StripeRefusal("resource_missing", "No.")

    @pytest.mark.parametrize(
        "payment", [".", "..", "a/b", "../charges", "a?b=c", "a b", "é", "%2e%2e", "pi_1\n"]
    )
    def test_an_id_that_may_lead_elsewhere_is_not_asked_for(
        self, stripe: Server, payment: str
    ) -> None:
        answer = stripe_gateway.look(payment)
        assert isinstance(answer, StripeRefusal)
        assert answer.code == "resource_missing"
        assert stripe.requests == []
