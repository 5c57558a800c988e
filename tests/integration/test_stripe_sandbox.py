"""What Stripe's API promises, asked of the sandbox; ``tests/contract`` has the rest."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
import stripe

from booking_platform.development.stripe_sandbox import Sandbox
from tests.servers import wait_until
from tests.stripe_clients import client, in_flight, refund, replayed

pytestmark = pytest.mark.once

DAY = 24 * 60 * 60
LONG = 60  # seconds: a wait that no test sits out


@pytest.fixture
def payment(sandbox: Sandbox) -> str:
    return sandbox.payment(amount=15_000, currency="eur")


def error_of(refused: pytest.ExceptionInfo[stripe.StripeError]) -> stripe.ErrorObject:
    """Return the error that Stripe's answer describes."""
    error = refused.value.error
    assert error is not None
    return error


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
        assert (error_of(refused).code, error_of(refused).param) == (code, param)
        assert not replayed(refund(api, payment))

    def test_it_needs_a_payment_or_a_charge(self, api: stripe.StripeClient, payment: str) -> None:
        with pytest.raises(stripe.InvalidRequestError, match="payment_intent or charge"):
            api.v1.refunds.create({"amount": 1})
        charge = api.v1.payment_intents.retrieve(payment).latest_charge
        assert isinstance(charge, str)
        assert api.v1.refunds.create({"charge": charge}).payment_intent == payment

    def test_a_disputed_charge_is_not_refunded(
        self, sandbox: Sandbox, api: stripe.StripeClient, payment: str
    ) -> None:
        sandbox.change_payment(payment, disputed=True)
        for _ in range(2):
            with pytest.raises(stripe.InvalidRequestError) as refused:
                refund(api, payment)
            assert error_of(refused).code == "charge_disputed"
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
        asked: Any = {"payment_intent": payment, **how}
        page = api.v1.refunds.list(asked)
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
        answer = requests.get(f"{sandbox.url}/v1/refunds", headers=authorization, timeout=60)
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
        assert first is not None
        assert again is not None
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
            return requests.post(url, body, headers=headers, timeout=60).json()

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
        wait_until(lambda: len(sandbox.refunds) == (fault == "slow_after"), what="execution")
        with pytest.raises(stripe.APIError) as refused:
            refund(api, payment)
        assert refused.value.http_status == 409
        assert error_of(refused).code == "idempotency_key_in_use"
        sandbox.reset()  # ends the wait
        assert isinstance(waiting.exception(60), stripe.APIConnectionError)

    def test_of_many_at_once_one_is_executed(
        self, sandbox: Sandbox, api: stripe.StripeClient, payment: str, threads: ThreadPoolExecutor
    ) -> None:
        futures = [threads.submit(refund, api, payment) for _ in range(20)]
        answered = [future.result().id for future in futures if not future.exception()]
        conflicts = [error for future in futures if (error := future.exception())]
        assert {getattr(error, "http_status", None) for error in conflicts} <= {409}
        assert set(answered) == {each["id"] for each in sandbox.refunds}
        assert len(sandbox.refunds) == 1
