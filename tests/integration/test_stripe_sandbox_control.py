"""What the sandbox does beyond Stripe's API: faults, webhooks, control, server, command."""

import gc
import hashlib
import hmac
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests
import stripe
from django.core.management import CommandError, call_command
from structlog.testing import capture_logs

from booking_platform.development.stripe_sandbox import Sandbox, Unknown, running
from tests.servers import wait_until
from tests.stripe_clients import client, in_flight, refund, replayed
from tests.stripe_remote import Remote

pytestmark = pytest.mark.once

DAY = 24 * 60 * 60
SECRET = "whsec_sandbox"
LONG = 60  # seconds: a wait that no test sits out


@pytest.fixture
def payment(sandbox: Sandbox) -> str:
    return sandbox.payment(amount=15_000, currency="eur")


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
        assert failed.value.headers is not None
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

        def again(url: str) -> bool:
            answer = requests.post(
                f"{url}/v1/refunds",
                "payment_intent=pi_sandbox_1_eur",
                headers={"Authorization": "Bearer sk_test_1", "Idempotency-Key": "key"},
                timeout=2 if not statuses else 60,
            )
            statuses.append(answer.status_code)
            return answer.status_code == 200

        with running() as sandbox:
            sandbox.fail(fault, seconds=LONG)
            with pytest.raises(requests.ReadTimeout):
                again(sandbox.url)
            in_flight(sandbox, fault)
            wait_until(lambda: len(sandbox.refunds) == made, what="it waits where it should")
            statuses.append(None)
            assert not again(sandbox.url)
            sandbox.release()
            wait_until(lambda: again(sandbox.url), what="the end of the wait")
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
        wait_until(lambda: sandbox.webhooks_sent >= number, what="the webhooks")

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

    def test_those_of_old_versions_have_one_event_for_a_change(self) -> None:
        old = "2022-11-15"
        with (
            Endpoint() as endpoint,
            running(0, endpoint.url, SECRET, webhook_version=old) as sandbox,
        ):
            made = refund(client(sandbox), "pi_sandbox_15000_eur")
            sandbox.change_refund(made.id, status="failed")
            self.sent(sandbox, 2)
        charged, changed = (json.loads(body) for body, _ in endpoint.received)
        assert (charged["type"], charged["api_version"]) == ("charge.refunded", old)
        assert charged["data"]["object"]["id"] == made.charge
        assert (changed["type"], changed["api_version"]) == ("charge.refund.updated", old)
        assert changed["data"]["object"]["id"] == made.id
        assert changed["data"]["object"]["object"] == "refund"
        assert changed["data"]["object"]["status"] == "failed"

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
        gc.collect()  # an answer that nobody has closed warns here, if not in a later test

    def test_one_that_nobody_takes_disturbs_nothing(self) -> None:
        with capture_logs() as logs, running(0, "http://127.0.0.1:1/", SECRET) as sandbox:
            assert refund(client(sandbox), "pi_sandbox_15000_eur").id
            wait_until(lambda: len(logs) == 2, what="two lines of the log")
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
        amounts: tuple[Any, ...] = ("150.00", 0, True)
        for wrong in amounts:
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

    @pytest.mark.parametrize("fault", ["slow_before", "slow_after"])
    def test_what_is_held_up_goes_on_when_it_is_released(
        self,
        sandbox: Sandbox,
        api: stripe.StripeClient,
        payment: str,
        threads: ThreadPoolExecutor,
        fault: str,
    ) -> None:
        sandbox.fail(fault, seconds=10 * LONG)
        waiting = threads.submit(refund, api, payment)
        in_flight(sandbox, fault)
        assert not waiting.done()
        sandbox.release()
        assert [waiting.result(LONG).id] == [each["id"] for each in sandbox.refunds]

    def test_a_wrong_body_is_a_400(self, sandbox: Sandbox) -> None:
        for body in ("[]", "{", '{"colour": 1}'):
            answer = requests.post(f"{sandbox.url}/_sandbox/faults", body, timeout=60)
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
        assert time.monotonic() - begun < LONG / 2
        for future in waiting:
            assert isinstance(future.exception(60), stripe.APIConnectionError)

    def test_it_waits_for_its_latency_and_serves_many_at_once(
        self, threads: ThreadPoolExecutor
    ) -> None:
        """20 clients at one second can take 20 answers a second; alone they would take one."""
        with running(latency=1.0) as sandbox:
            api = client(sandbox)
            begun = time.monotonic()
            ids = list(
                threads.map(
                    lambda number: refund(api, f"pi_sandbox_5000_eur_{number}", key=number).id,
                    [str(number) for number in range(20)],
                )
            )
            took = time.monotonic() - begun
        assert len(set(ids)) == 20
        assert 1.0 <= took < 15

    def test_connections_are_kept(self, sandbox: Sandbox) -> None:
        used = set()
        with requests.Session() as session:
            headers = {"Authorization": "Bearer sk_test_1"}
            for _ in range(2):
                answer = session.get(
                    f"{sandbox.url}/v1/refunds", headers=headers, stream=True, timeout=60
                )
                used.add(answer.raw.connection.sock.getsockname())
                assert answer.json()["data"] == []
            unknown = session.get(f"{sandbox.url}/v1/x", headers=headers, timeout=60)
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
            assert process.communicate(timeout=60) == ("", "")
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
