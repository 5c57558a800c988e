"""The Stripe sandbox, over HTTP and with Stripe's own library; ``tests/contract`` has the rest."""

import hashlib
import hmac
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests
import stripe
from django.core.management import CommandError, call_command
from structlog.testing import capture_logs

from payments.sandbox import Remote, Sandbox, running
from payments.sandbox.state import Unknown
from tests.servers import wait_until

DAY = 24 * 60 * 60
SECRET = "whsec_sandbox"
LONG = 60  # seconds: a wait that no test sits out


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with running() as sandbox:
        yield sandbox


@pytest.fixture
def api(sandbox: Sandbox) -> stripe.StripeClient:
    return client(sandbox)


@pytest.fixture
def payment(sandbox: Sandbox) -> str:
    return sandbox.payment(amount=15_000, currency="eur")


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(20) as threads:
        yield threads


def client(sandbox: Sandbox, api_key: str = "sk_test_1") -> stripe.StripeClient:
    return stripe.StripeClient(api_key, base_addresses={"api": sandbox.url})


def refund(
    api: stripe.StripeClient, payment: str, amount: int = 5000, key: str = "key", **more: Any
) -> stripe.Refund:
    asked = {"payment_intent": payment, "amount": amount, **more}
    return api.v1.refunds.create(asked, {"idempotency_key": key})


def replayed(answered: Any) -> bool:
    return answered.last_response.headers.get("Idempotent-Replayed") == "true"


def in_flight(sandbox: Sandbox, fault: str) -> None:
    """Wait until a request is held up by a fault."""
    wait_until(
        lambda: [each for each in sandbox.requests if each.fault == fault and not each.answered],
        seconds=10,
        what=f"a request with {fault}",
    )


class TestRefunds:
    @pytest.mark.parametrize(
        ("asked", "code", "param"),
        [
            ({"colour": "red"}, "parameter_unknown", "colour"),
            ({"amount": "1.5"}, "parameter_invalid_integer", "amount"),
            ({"amount": 0}, "parameter_invalid_integer", "amount"),
            ({"amount": -1}, "parameter_invalid_integer", "amount"),
            ({"amount": ""}, "parameter_invalid_empty", "amount"),
            ({"reason": "whim"}, None, "reason"),
            ({"metadata": {"key": "x" * 501}}, None, "metadata"),
            ({"metadata": {"k" * 41: "x"}}, None, "metadata"),
            ({"payment_intent": "pi_x"}, "resource_missing", "payment_intent"),
            ({"charge": "ch_x"}, "resource_missing", "id"),
        ],
    )
    def test_a_wrong_request_is_refused_and_leaves_the_key_free(
        self, api: stripe.StripeClient, payment: str, asked: Any, code: str | None, param: str
    ) -> None:
        with pytest.raises(stripe.InvalidRequestError) as refused:
            refund(api, **{"payment": payment, **asked})
        assert (refused.value.error.code, refused.value.error.param) == (code, param)
        assert not replayed(refund(api, payment))

    def test_it_needs_a_payment_or_a_charge(self, api: stripe.StripeClient, payment: str) -> None:
        with pytest.raises(stripe.InvalidRequestError, match="payment_intent or charge"):
            api.v1.refunds.create({"amount": 1})
        charge = api.v1.payment_intents.retrieve(payment).latest_charge
        assert api.v1.refunds.create({"charge": charge}).payment_intent == payment

    def test_a_disputed_charge_is_not_refunded(
        self, sandbox: Sandbox, api: stripe.StripeClient, payment: str
    ) -> None:
        sandbox.change_payment(payment, disputed=True)
        for _ in range(2):
            with pytest.raises(stripe.InvalidRequestError) as refused:
                refund(api, payment)
            assert refused.value.error.code == "charge_disputed"
            sandbox.change_payment(payment, disputed=False)  # the key remembers the refusal
        assert sandbox.refunds == []

    def test_what_failed_can_be_refunded_again(
        self, sandbox: Sandbox, api: stripe.StripeClient, payment: str
    ) -> None:
        whole = refund(api, payment, 15_000)
        with pytest.raises(stripe.InvalidRequestError, match="already been refunded"):
            refund(api, payment, key="second")
        changed = sandbox.change_refund(whole.id, status="failed", failure_reason="declined")
        assert changed["failure_reason"] == "declined"
        assert refund(api, payment, 15_000, key="third").status == "succeeded"
        assert [each["status"] for each in sandbox.refunds] == ["failed", "succeeded"]

    def test_a_payment_says_what_its_refunds_begin_as(
        self, sandbox: Sandbox, api: stripe.StripeClient, payment: str
    ) -> None:
        sandbox.change_payment(payment, refund_status="pending")
        assert refund(api, payment).status == "pending"
        with pytest.raises(stripe.InvalidRequestError, match=r"€100\.00"):  # pending money is gone
            refund(api, payment, 15_000, key="second")

    def test_a_payment_may_be_there_as_soon_as_it_is_named(self, api: stripe.StripeClient) -> None:
        named = api.v1.payment_intents.retrieve("pi_sandbox_700_jpy_demo")
        assert (named.amount, named.currency, named.status) == (700, "jpy", "succeeded")
        assert refund(api, named.id, 700).charge == named.latest_charge
        for other in ("pi_sandbox_700", "pi_sandbox_x_jpy", "pi_sandbox_0_jpy"):
            with pytest.raises(stripe.InvalidRequestError, match="No such payment_intent"):
                api.v1.payment_intents.retrieve(other)


class TestLists:
    @pytest.fixture
    def ids(self, sandbox: Sandbox, api: stripe.StripeClient, payment: str) -> list[str]:
        """Three refunds, newest first, a minute apart; and one of another payment."""
        refund(api, sandbox.payment(amount=100, currency="eur"), 100, key="other")
        made = []
        for number in range(3):
            sandbox.advance(60)
            made.append(refund(api, payment, 100, key=str(number)).id)
        return made[::-1]

    def listed(self, api: stripe.StripeClient, payment: str, **how: Any) -> Any:
        page = api.v1.refunds.list({"payment_intent": payment, **how})
        return [each.id for each in page.data], page.has_more

    def test_they_have_pages(self, api: stripe.StripeClient, payment: str, ids: list[str]) -> None:
        assert self.listed(api, payment) == (ids, False)
        assert self.listed(api, payment, limit=2) == (ids[:2], True)
        assert self.listed(api, payment, starting_after=ids[0], limit=1) == ([ids[1]], True)
        assert self.listed(api, payment, starting_after=ids[1]) == ([ids[2]], False)
        assert self.listed(api, payment, ending_before=ids[2], limit=1) == ([ids[1]], True)
        assert self.listed(api, payment, ending_before=ids[1]) == ([ids[0]], False)
        assert len(api.v1.refunds.list().data) == 4

    def test_they_can_be_cut_by_time(
        self, api: stripe.StripeClient, payment: str, ids: list[str]
    ) -> None:
        middle = api.v1.refunds.retrieve(ids[1]).created
        for how, expected in {"gt": [0], "gte": [0, 1], "lt": [2], "lte": [1, 2]}.items():
            found, _ = self.listed(api, payment, created={how: middle})
            assert found == [ids[index] for index in expected]
        assert self.listed(api, payment, created=middle) == ([ids[1]], False)

    @pytest.mark.parametrize(
        "wrong", [{"limit": 101}, {"limit": 0}, {"colour": 1}, {"starting_after": "re_x"}]
    )
    def test_a_wrong_question_is_refused(
        self, api: stripe.StripeClient, payment: str, wrong: dict[str, Any]
    ) -> None:
        with pytest.raises(stripe.InvalidRequestError):
            self.listed(api, payment, **wrong)
        with pytest.raises(stripe.InvalidRequestError, match="No such payment_intent"):
            self.listed(api, "pi_x")


class TestApiKeys:
    @pytest.mark.parametrize(
        ("authorization", "message"),
        [
            ({}, "You did not provide an API key"),
            ({"Authorization": "Bearer sk_live_abcdefgh"}, "provided: sk_live_****efgh"),
            ({"Authorization": "Bearer pk"}, "provided: **"),
        ],
    )
    def test_only_those_of_test_mode_are_taken(
        self, sandbox: Sandbox, authorization: dict[str, str], message: str
    ) -> None:
        answer = requests.get(f"{sandbox.url}/v1/refunds", headers=authorization, timeout=10)
        assert answer.status_code == 401
        assert message in answer.json()["error"]["message"]

    def test_they_are_not_recorded(
        self, sandbox: Sandbox, api: stripe.StripeClient, payment: str
    ) -> None:
        refund(api, payment)
        [record] = sandbox.requests
        assert (record.method, record.path, record.key) == ("POST", "/v1/refunds", "key")
        assert (record.status, record.answered, record.replayed) == (200, True, False)
        assert record.body.startswith(f"payment_intent={payment}".encode())
        assert "sk_test" not in repr(record)


class TestIdempotencyKeys:
    def test_they_are_forgotten_after_a_day(
        self, sandbox: Sandbox, api: stripe.StripeClient, payment: str
    ) -> None:
        first = refund(api, payment)
        sandbox.advance(DAY - 60)
        assert refund(api, payment).id == first.id
        sandbox.advance(60)
        assert refund(api, payment).id != first.id

    def test_a_replay_names_the_original_request(
        self, sandbox: Sandbox, api: stripe.StripeClient, payment: str
    ) -> None:
        first, again = (refund(api, payment).last_response for _ in range(2))
        assert first.headers["original-request"] == first.headers["request-id"]
        assert again.headers["original-request"] == first.headers["request-id"]
        assert again.headers["request-id"] != first.headers["request-id"]
        assert [record.replayed for record in sandbox.requests] == [False, True]

    def test_each_api_key_has_its_own(self, sandbox: Sandbox, payment: str) -> None:
        ours, theirs = (client(sandbox, f"rk_test_{number}") for number in range(2))
        assert refund(ours, payment).id != refund(theirs, payment).id

    def test_the_order_of_parameters_means_nothing(self, sandbox: Sandbox, payment: str) -> None:
        def post(body: str) -> Any:
            headers = {"Authorization": "Bearer sk_test_1", "Idempotency-Key": "key"}
            url = f"{sandbox.url}/v1/refunds"
            return requests.post(url, body, headers=headers, timeout=10).json()

        first = post(f"payment_intent={payment}&metadata[a]=%C3%A9&metadata[b]=2&amount=1")
        assert first["metadata"] == {"a": "é", "b": "2"}
        same = post(f"amount=1&metadata%5Bb%5D=2&metadata[a]=é&payment_intent={payment}")
        assert same == first
        other = post(f"amount=1&metadata[b]=3&metadata[a]=é&payment_intent={payment}")
        assert other["error"]["type"] == "idempotency_error"

    def test_they_have_at_most_255_characters(self, api: stripe.StripeClient, payment: str) -> None:
        assert refund(api, payment, key="k" * 255).id
        with pytest.raises(stripe.InvalidRequestError, match="255"):
            refund(api, payment, key="k" * 256)

    @pytest.mark.parametrize("fault", ["slow_before", "slow_after"])
    def test_one_in_flight_is_a_conflict(
        self,
        sandbox: Sandbox,
        api: stripe.StripeClient,
        payment: str,
        threads: ThreadPoolExecutor,
        fault: str,
    ) -> None:
        sandbox.fail(fault, seconds=LONG)
        waiting = threads.submit(refund, api, payment)
        in_flight(sandbox, fault)
        wait_until(
            lambda: len(sandbox.refunds) == (fault == "slow_after"), seconds=10, what="execution"
        )
        with pytest.raises(stripe.APIError) as refused:
            refund(api, payment)
        assert refused.value.http_status == 409
        assert refused.value.error.code == "idempotency_key_in_use"
        sandbox.reset()  # ends the wait
        assert isinstance(waiting.exception(10), stripe.APIConnectionError)

    def test_of_many_at_once_one_is_executed(
        self, sandbox: Sandbox, api: stripe.StripeClient, payment: str, threads: ThreadPoolExecutor
    ) -> None:
        futures = [threads.submit(refund, api, payment) for _ in range(20)]
        answered = [future.result().id for future in futures if not future.exception()]
        conflicts = [error for future in futures if (error := future.exception())]
        assert {getattr(error, "http_status", None) for error in conflicts} <= {409}
        assert set(answered) == {each["id"] for each in sandbox.refunds}
        assert len(sandbox.refunds) == 1


class TestFaults:
    @pytest.mark.parametrize(
        "failure",
        [
            ("drop_before", stripe.APIConnectionError, None),
            ("unavailable", stripe.APIError, 503),
            ("failed_dependency", stripe.APIError, 424),
            ("rate_limited", stripe.RateLimitError, 429),
            ("unauthorized", stripe.AuthenticationError, 401),
            ("forbidden", stripe.PermissionError, 403),
            ("conflict", stripe.APIError, 409),
        ],
    )
    def test_before_execution_nothing_is_done_or_saved(
        self,
        sandbox: Sandbox,
        api: stripe.StripeClient,
        payment: str,
        failure: tuple[str, type[stripe.StripeError], int | None],
    ) -> None:
        fault, error, status = failure
        sandbox.fail(fault)
        with pytest.raises(error) as failed:
            refund(api, payment)
        assert failed.value.http_status == status
        assert sandbox.refunds == []
        assert not replayed(refund(api, payment))
        assert [record.fault for record in sandbox.requests] == [fault, None]
        assert [record.answered for record in sandbox.requests] == [status is not None, True]

    @pytest.mark.parametrize(("fault", "made"), [("error_before", 0), ("error_after", 1)])
    def test_a_500_is_saved(
        self, sandbox: Sandbox, api: stripe.StripeClient, payment: str, fault: str, made: int
    ) -> None:
        sandbox.fail(fault)
        for _ in range(2):
            with pytest.raises(stripe.APIError) as failed:
                refund(api, payment)
            assert failed.value.http_status == 500
        assert failed.value.headers["idempotent-replayed"] == "true"
        assert len(sandbox.refunds) == made

    @pytest.mark.parametrize("fault", ["drop_after", "garbage", "truncated"])
    def test_an_answer_may_be_lost_after_execution(
        self, sandbox: Sandbox, api: stripe.StripeClient, payment: str, fault: str
    ) -> None:
        sandbox.fail(fault)
        with pytest.raises((stripe.APIConnectionError, stripe.APIError)):
            refund(api, payment)
        again = refund(api, payment)
        assert replayed(again)
        assert [each["id"] for each in sandbox.refunds] == [again.id]
        assert sandbox.requests[0].status == (None if fault == "drop_after" else 200)

    def test_an_answer_may_be_no_refund(
        self, sandbox: Sandbox, api: stripe.StripeClient, payment: str
    ) -> None:
        sandbox.fail("not_a_refund")
        assert refund(api, payment).to_dict() == {}
        assert replayed(refund(api, payment))

    @pytest.mark.parametrize(("fault", "made"), [("slow_before", 0), ("slow_after", 1)])
    def test_a_client_that_gave_up_was_not_answered(self, fault: str, made: int) -> None:
        statuses: list[int | None] = []

        def again() -> bool:
            answer = requests.post(
                f"{sandbox.url}/v1/refunds",
                "payment_intent=pi_sandbox_1_eur",
                headers={"Authorization": "Bearer sk_test_1", "Idempotency-Key": "key"},
                timeout=0.2 if not statuses else 10,
            )
            statuses.append(answer.status_code)
            return answer.status_code == 200

        with running() as sandbox:
            sandbox.fail(fault, seconds=1)
            with pytest.raises(requests.ReadTimeout):
                again()
            assert len(sandbox.refunds) == made
            statuses.append(None)
            wait_until(again, seconds=10, what="the end of the wait")
        assert set(statuses[1:-1]) == {409}
        records = sandbox.requests
        assert (records[0].status, records[0].answered) == (None, False)
        assert (records[-1].replayed, records[-1].answered) == (True, True)

    def test_they_fit_a_payment_a_method_and_a_number_of_times(
        self, sandbox: Sandbox, api: stripe.StripeClient, payment: str
    ) -> None:
        other = sandbox.payment(amount=100, currency="eur")
        sandbox.fail("unavailable", times=2, payment=payment)
        assert refund(api, other, 100, key="other").id
        for _ in range(2):
            with pytest.raises(stripe.APIError):
                refund(api, payment)
        made = refund(api, payment)
        sandbox.fail("drop_after", times=0, payment=payment, method="GET")
        for _ in range(3):
            with pytest.raises(stripe.APIConnectionError):
                api.v1.refunds.list({"payment_intent": payment})
            with pytest.raises(stripe.APIConnectionError):
                api.v1.refunds.retrieve(made.id)
        assert api.v1.refunds.list({"payment_intent": other}).data
        assert refund(api, payment, key="more").id
        sandbox.clear_faults()
        assert len(api.v1.refunds.list({"payment_intent": payment}).data) == 2

    @pytest.mark.parametrize(
        "wrong", [{"fault": "x"}, {"method": "PUT"}, {"times": -1}, {"seconds": -1}]
    )
    def test_what_there_is_not_is_refused(self, sandbox: Sandbox, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"."):
            sandbox.fail(**{"fault": "garbage", **wrong})


class Endpoint(ThreadingHTTPServer):
    """Receives webhooks, and refuses the first ``refusals`` of them."""

    def __init__(self, refusals: int = 0) -> None:
        self.refusals = refusals
        self.received: list[tuple[bytes, str]] = []
        super().__init__(("127.0.0.1", 0), Webhook)
        self.url = f"http://127.0.0.1:{self.server_port}/webhooks"

    def __enter__(self) -> "Endpoint":
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self.thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.shutdown()
        self.server_close()
        self.thread.join()


class Webhook(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((body, self.headers["Stripe-Signature"]))
        self.server.refusals -= 1
        self.send_response(500 if self.server.refusals >= 0 else 200)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


class TestWebhooks:
    def sent(self, sandbox: Sandbox, number: int) -> None:
        wait_until(lambda: sandbox.webhooks_sent >= number, seconds=10, what="the webhooks")

    def test_they_tell_what_happens_to_a_refund(self) -> None:
        with Endpoint() as endpoint, running(0, endpoint.url, SECRET) as sandbox:
            payment = sandbox.payment(amount=15_000, currency="eur")
            made = refund(client(sandbox), payment)
            self.sent(sandbox, 2)
            sandbox.change_refund(made.id, status="failed")
            self.sent(sandbox, 4)
            sandbox.change_refund(made.id, status="failed")  # nothing new
        events = [json.loads(body) for body, _ in endpoint.received]
        assert {event["type"]: event["data"]["object"]["id"] for event in events} == {
            "refund.created": made.id,
            "refund.updated": made.id,
            "refund.failed": made.id,
            "charge.refunded": made.charge,
        }
        assert len({event["id"] for event in events}) == len(events) == 4
        by_type = {event["type"]: event["data"] for event in events}
        assert by_type["charge.refunded"]["object"]["amount_refunded"] == 5000
        assert by_type["refund.updated"]["object"]["status"] == "failed"
        assert by_type["refund.updated"]["previous_attributes"] == {"status": "succeeded"}

    def test_they_are_signed_as_stripe_does(self) -> None:
        with Endpoint() as endpoint, running(0, endpoint.url, SECRET) as sandbox:
            sandbox.advance(DAY)  # signatures are of the real time
            refund(client(sandbox), "pi_sandbox_15000_eur")
            self.sent(sandbox, 2)
        for body, header in endpoint.received:
            event = stripe.Webhook.construct_event(body, header, SECRET)
            assert event.object == "event"
            assert not event.livemode
            with pytest.raises(stripe.SignatureVerificationError):
                stripe.Webhook.construct_event(body, header, "whsec_other")
            timestamp = header.split(",")[0].removeprefix("t=")
            assert abs(int(timestamp) - time.time()) < 60
            signed = hmac.new(SECRET.encode(), f"{timestamp}.".encode() + body, hashlib.sha256)
            assert header == f"t={timestamp},v1={signed.hexdigest()}"

    def test_one_that_is_refused_is_sent_again(self) -> None:
        with Endpoint(refusals=2) as endpoint, running(0, endpoint.url, SECRET) as sandbox:
            refund(client(sandbox), "pi_sandbox_15000_eur")
            self.sent(sandbox, 2)
            assert len(endpoint.received) == 4
            sandbox.reset()
            assert sandbox.webhooks_sent == 0

    def test_one_that_nobody_takes_disturbs_nothing(self) -> None:
        with capture_logs() as logs, running(0, "http://127.0.0.1:1/", SECRET) as sandbox:
            assert refund(client(sandbox), "pi_sandbox_15000_eur").id
            wait_until(lambda: len(logs) == 2, seconds=10, what="two lines of the log")
            assert sandbox.webhooks_sent == 0
        assert {line["event"] for line in logs} == {"A webhook was not delivered"}

    @pytest.mark.parametrize(("url", "secret"), [("http://127.0.0.1:1/", ""), ("ftp://x", SECRET)])
    def test_what_can_not_be_sent_is_refused(self, url: str, secret: str) -> None:
        with pytest.raises(ValueError, match="webhook_"), running(0, url, secret):
            pass


class TestControl:
    def test_other_processes_have_the_same_methods(
        self, sandbox: Sandbox, api: stripe.StripeClient
    ) -> None:
        remote = Remote(sandbox.url)
        payment = remote.payment(amount=15_000, currency="eur")
        remote.fail("drop_after", payment=payment)
        with pytest.raises(stripe.APIConnectionError):
            refund(api, payment, metadata={"name": "é"})
        assert remote.requests == sandbox.requests
        assert remote.refunds == sandbox.refunds
        [made] = remote.refunds
        assert remote.change_refund(made["id"], status="canceled")["status"] == "canceled"
        remote.change_payment(payment, disputed=True)
        remote.fail("unavailable", times=0)
        remote.clear_faults()
        remote.advance(DAY)
        with pytest.raises(stripe.InvalidRequestError, match="charged back"):
            refund(api, payment)
        assert remote.webhooks_sent == 0
        remote.reset()
        assert (remote.refunds, remote.requests) == ([], [])

    @pytest.mark.parametrize("remote", [True, False])
    def test_what_can_not_be_is_refused(self, sandbox: Sandbox, remote: bool) -> None:
        control = Remote(sandbox.url) if remote else sandbox
        payment = control.payment(amount=1, currency="eur")
        for wrong in ("150.00", 0, True):
            with pytest.raises(ValueError, match="amount"):
                control.payment(amount=wrong, currency="eur")
        with pytest.raises(ValueError, match="currency"):
            control.payment(amount=1, currency="EUR")
        with pytest.raises(ValueError, match="status"):
            control.change_payment(payment, refund_status="done")
        with pytest.raises(ValueError, match="only goes forward"):
            control.advance(-1)
        with pytest.raises(Unknown, match="re_x"):
            control.change_refund("re_x", status="failed")
        with pytest.raises(Unknown, match="pi_x"):
            control.change_payment("pi_x", disputed=True)

    def test_a_wrong_body_is_a_400(self, sandbox: Sandbox) -> None:
        for body in ("[]", "{", '{"colour": 1}'):
            answer = requests.post(f"{sandbox.url}/_sandbox/faults", body, timeout=10)
            assert answer.status_code == 400

    def test_a_reset_forgets_everything(
        self, sandbox: Sandbox, api: stripe.StripeClient, payment: str
    ) -> None:
        refund(api, payment)
        sandbox.fail("unavailable", times=0)
        sandbox.advance(DAY)
        sandbox.reset()
        assert (sandbox.refunds, sandbox.requests) == ([], [])
        made = refund(api, "pi_sandbox_5000_eur")
        assert not replayed(made)
        assert abs(made.created - time.time()) < 60


class TestServer:
    def test_a_stop_ends_every_wait(self, threads: ThreadPoolExecutor) -> None:
        waiting: list[Future[Any]] = []
        with running() as sandbox:
            for fault in ("slow_before", "slow_after"):
                sandbox.fail(fault, seconds=LONG)
                payment = sandbox.payment(amount=5000, currency="eur")
                waiting.append(threads.submit(refund, client(sandbox), payment, key=fault))
                in_flight(sandbox, fault)
            begun = time.monotonic()
        assert time.monotonic() - begun < 5
        for future in waiting:
            assert isinstance(future.exception(10), stripe.APIConnectionError)

    def test_it_waits_for_its_latency_and_serves_many_at_once(
        self, threads: ThreadPoolExecutor
    ) -> None:
        """20 clients at 200 ms can take 100 answers a second; alone they would take 5."""
        with running(latency=0.2) as sandbox:
            api = client(sandbox)
            begun = time.monotonic()
            ids = list(
                threads.map(
                    lambda number: refund(api, f"pi_sandbox_5000_eur_{number}", key=number).id,
                    [str(number) for number in range(100)],
                )
            )
            took = time.monotonic() - begun
        assert len(set(ids)) == 100
        assert 1.0 <= took < 10

    def test_connections_are_kept(self, sandbox: Sandbox) -> None:
        used = set()
        with requests.Session() as session:
            headers = {"Authorization": "Bearer sk_test_1"}
            for _ in range(2):
                answer = session.get(
                    f"{sandbox.url}/v1/refunds", headers=headers, stream=True, timeout=10
                )
                used.add(answer.raw.connection.sock.getsockname())
                assert answer.json()["data"] == []
            unknown = session.get(f"{sandbox.url}/v1/x", headers=headers, timeout=10)
            assert unknown.status_code == 404
        assert len(used) == 1

    def test_only_this_machine_reaches_it(self, sandbox: Sandbox) -> None:
        port = int(sandbox.url.rpartition(":")[2])
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), timeout=5).close()


class TestCommand:
    def test_it_says_where_it_listens_and_ends_on_a_signal(self) -> None:
        for wish in (signal.SIGTERM, signal.SIGINT):
            process = subprocess.Popen(
                [sys.executable, "manage.py", "stripe_sandbox", "--port", "0"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert process.stdout is not None
            said = process.stdout.readline()
            url = said.removeprefix("The Stripe sandbox listens at ").split(". ")[0]
            assert Remote(url).refunds == []
            process.send_signal(wish)
            assert process.communicate(timeout=30) == ("", "")
            assert process.returncode == 0

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            (("--port", "70000"), "Port 70000 can't be used"),
            (("--port", "0", "--latency", "-1"), "latency is -1.0"),
            (("--port", "0", "--webhook-url", "http://127.0.0.1:1/"), "webhook_secret is missing"),
        ],
    )
    def test_it_says_what_is_wrong(self, arguments: tuple[str, ...], problem: str) -> None:
        with pytest.raises(CommandError, match=problem):
            call_command("stripe_sandbox", *arguments)

    def test_a_port_in_use_is_named(self, sandbox: Sandbox) -> None:
        port = sandbox.url.rpartition(":")[2]
        with pytest.raises(
            CommandError, match=f"Port {port} can't be used: Address already in use"
        ):
            call_command("stripe_sandbox", "--port", port)
