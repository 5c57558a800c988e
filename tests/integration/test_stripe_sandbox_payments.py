"""What the sandbox knows of payments, their charges, and the account's money."""

from collections.abc import Callable
from typing import Any

import pytest
import stripe

from booking_platform.development.stripe_sandbox import Sandbox
from tests.stripe_clients import refund, replayed
from tests.stripe_remote import Remote

pytestmark = pytest.mark.once


@pytest.fixture
def payment(sandbox: Sandbox) -> str:
    return sandbox.payment(amount=15_000, currency="eur", metadata={"booking_id": "BK-1"})


def look(api: stripe.StripeClient, payment: str, *expand: str) -> Any:
    return api.v1.payment_intents.retrieve(payment, {"expand": list(expand)})


def code_of(refused: pytest.ExceptionInfo[stripe.StripeError]) -> str | None:
    assert refused.value.error is not None
    return refused.value.error.code


class TestPayments:
    @pytest.mark.parametrize(
        "expected",
        [
            ("processing", "pending", 0),
            ("requires_capture", "succeeded", 0),
            ("canceled", "failed", 0),
            ("requires_payment_method", "failed", 0),
            ("succeeded", "succeeded", 15_000),
        ],
    )
    def test_a_status_says_what_was_received(
        self,
        sandbox: Sandbox,
        api: stripe.StripeClient,
        payment: str,
        expected: tuple[str, str, int],
    ) -> None:
        status, charge, captured = expected
        named = look(api, payment).latest_charge
        sandbox.change_payment(payment, status=status)
        read = look(api, payment)
        assert (read.status, read.amount, read.amount_received) == (status, 15_000, captured)
        assert read.latest_charge == (named if charge == "succeeded" else None)
        charged = api.v1.charges.retrieve(named)
        assert (charged.status, charged.amount_captured) == (charge, captured)
        assert (charged.captured, charged.paid) == (captured > 0, charge == "succeeded")

    def test_one_may_begin_in_any_status_and_with_metadata(
        self, sandbox: Sandbox, api: stripe.StripeClient
    ) -> None:
        made = sandbox.payment(
            amount=1, currency="jpy", metadata={"booking": "B"}, status="processing"
        )
        read = look(api, made)
        assert (read.status, read.metadata.to_dict()) == ("processing", {"booking": "B"})

    @pytest.mark.parametrize("by", ["payment_intent", "charge"])
    @pytest.mark.parametrize(
        "status", ["processing", "requires_capture", "canceled", "requires_payment_method"]
    )
    def test_what_is_not_paid_is_not_refunded_and_the_key_remembers_it(
        self, sandbox: Sandbox, api: stripe.StripeClient, payment: str, status: str, by: str
    ) -> None:
        asked: Any = {by: payment if by == "payment_intent" else look(api, payment).latest_charge}
        sandbox.change_payment(payment, status=status)
        for key, remembered in (("one", None), ("one", "true")):
            with pytest.raises(stripe.InvalidRequestError, match="successful charge") as refused:
                api.v1.refunds.create(asked, {"idempotency_key": key})
            assert code_of(refused) == "payment_intent_unexpected_state"
            assert (refused.value.headers or {}).get("idempotent-replayed") == remembered
            sandbox.change_payment(payment, status="succeeded")
        assert api.v1.refunds.create(asked, {"idempotency_key": "two"}).amount == 15_000

    @pytest.mark.parametrize("charge", ["ch_sandbox_15000_eur_x", "py_sandbox_15000_eur_x"])
    def test_a_charge_may_have_no_intent(
        self, sandbox: Sandbox, api: stripe.StripeClient, charge: str
    ) -> None:
        read = api.v1.charges.retrieve(charge)
        assert (read.id, read.amount, read.currency) == (charge, 15_000, "eur")
        assert read.payment_intent is None
        made = api.v1.refunds.create({"charge": charge, "amount": 5000})
        assert (made.charge, made.payment_intent) == (charge, None)
        assert api.v1.charges.retrieve(charge).amount_refunded == 5000
        assert sandbox.change_payment(charge, status="processing")["status"] == "pending"
        with pytest.raises(stripe.InvalidRequestError, match=rf"Charge \({charge}\)"):
            api.v1.refunds.create({"charge": charge})

    def test_an_intent_is_no_charge_and_a_charge_no_intent(
        self, api: stripe.StripeClient, payment: str
    ) -> None:
        charge = look(api, payment).latest_charge
        with pytest.raises(stripe.InvalidRequestError, match="No such charge"):
            api.v1.charges.retrieve(payment)
        with pytest.raises(stripe.InvalidRequestError, match="No such payment_intent"):
            look(api, charge)
        with pytest.raises(stripe.InvalidRequestError, match="No such charge"):
            api.v1.refunds.create({"charge": payment})

    def test_a_charge_belongs_to_one_intent(
        self, sandbox: Sandbox, api: stripe.StripeClient, payment: str
    ) -> None:
        other = look(api, sandbox.payment(amount=1, currency="eur")).latest_charge
        with pytest.raises(stripe.InvalidRequestError, match="does not belong"):
            api.v1.refunds.create({"charge": other, "payment_intent": payment})


class TestExpansions:
    def test_one_request_says_all_of_a_payment(
        self, api: stripe.StripeClient, payment: str
    ) -> None:
        made = [refund(api, payment, 1000, key=str(number)).id for number in range(12)]
        charge = look(api, payment, "latest_charge.refunds").latest_charge
        assert (charge.object, charge.amount, charge.amount_refunded) == ("charge", 15_000, 12_000)
        assert (charge.payment_intent, charge.disputed, charge.refunded) == (payment, False, False)
        assert charge.metadata.to_dict() == {"booking_id": "BK-1"}
        assert [each.id for each in charge.refunds.data] == made[:1:-1]  # the ten newest
        assert (charge.refunds.object, charge.refunds.has_more) == ("list", True)
        assert charge.refunds.url == f"/v1/charges/{charge.id}/refunds"
        asked: Any = {"payment_intent": payment, "limit": 100}
        assert [each.id for each in api.v1.refunds.list(asked).data] == made[::-1]
        asked = {"charge": charge.id, "limit": 100}
        assert [each.id for each in api.v1.refunds.list(asked).data] == made[::-1]
        assert len(list(charge.refunds.auto_paging_iter())) == 12

    def test_without_them_there_are_ids(self, api: stripe.StripeClient, payment: str) -> None:
        charge = look(api, payment).latest_charge
        assert isinstance(charge, str)
        assert isinstance(look(api, payment, "latest_charge").latest_charge, stripe.Charge)
        assert "refunds" not in api.v1.charges.retrieve(charge).to_dict()

    def test_they_may_be_several_and_nested(
        self, sandbox: Sandbox, api: stripe.StripeClient, payment: str
    ) -> None:
        refund(api, payment, 1000)
        charge = look(api, payment).latest_charge
        paths: Any = {"expand": ["payment_intent", "refunds", "refunds.data.payment_intent"]}
        read: Any = api.v1.charges.retrieve(charge, paths)
        assert read.payment_intent.metadata.to_dict() == {"booking_id": "BK-1"}
        assert read.refunds.data[0].payment_intent.id == payment
        listed: Any = api.v1.refunds.list({"expand": ["data.charge"]})
        assert listed.data[0].charge.id == charge
        assert sandbox.refunds[0]["charge"] == charge  # the refund itself is as it was

    def test_of_nothing_there_is_nothing(
        self, sandbox: Sandbox, api: stripe.StripeClient, payment: str
    ) -> None:
        sandbox.change_payment(payment, status="processing")
        assert look(api, payment, "latest_charge.refunds").latest_charge is None
        listed = api.v1.refunds.list({"expand": ["data.charge"]})
        assert listed.data == []

    @pytest.mark.parametrize(
        ("path", "named"),
        [
            ("charges", "charges"),
            ("latest_charge.colour", "colour"),
            ("status", "status"),
            ("latest_charge.refunds.charge", "charge"),
        ],
    )
    def test_unknown_ones_are_refused(
        self, api: stripe.StripeClient, payment: str, path: str, named: str
    ) -> None:
        with pytest.raises(stripe.InvalidRequestError, match=rf"expanded \({named}\)") as refused:
            look(api, payment, path)
        assert refused.value.http_status == 400
        with pytest.raises(stripe.InvalidRequestError, match="4 levels"):
            look(api, payment, "latest_charge.refunds.data.charge.refunds")

    def test_a_refund_is_not_made_for_a_wrong_one(
        self, sandbox: Sandbox, api: stripe.StripeClient, payment: str
    ) -> None:
        with pytest.raises(stripe.InvalidRequestError, match="expanded"):
            refund(api, payment, expand=["colour"])
        assert sandbox.refunds == []
        made: Any = refund(api, payment, expand=["charge"])
        assert not replayed(made)
        assert made.charge.amount_refunded == 5000


class TestBalance:
    def test_a_refund_that_exceeds_it_is_refused_and_the_key_remembers_it(
        self, sandbox: Sandbox, api: stripe.StripeClient, payment: str
    ) -> None:
        sandbox.set_balance("eur", 4999)
        for remembered in (None, "true"):
            with pytest.raises(stripe.InvalidRequestError, match="Insufficient funds") as refused:
                refund(api, payment, 5000)
            assert (refused.value.http_status, code_of(refused)) == (400, "balance_insufficient")
            assert (refused.value.headers or {}).get("idempotent-replayed") == remembered
            sandbox.set_balance("eur", None)
        assert refund(api, payment, 5000, key="again").amount == 5000

    def test_refunds_take_from_it_and_failed_ones_give_back(
        self, sandbox: Sandbox, api: stripe.StripeClient, payment: str
    ) -> None:
        sandbox.set_balance("eur", 5000)
        first = refund(api, payment, 5000)
        with pytest.raises(stripe.InvalidRequestError, match="Insufficient funds"):
            refund(api, payment, 1, key="second")
        other = sandbox.payment(amount=500, currency="usd")
        assert refund(api, other, 500, key="dollars").amount == 500
        sandbox.change_refund(first.id, status="failed")
        sandbox.change_refund(first.id, status="canceled")  # once
        assert refund(api, payment, 5000, key="third").amount == 5000
        with pytest.raises(stripe.InvalidRequestError, match="Insufficient funds"):
            refund(api, payment, 1, key="fourth")

    def test_one_that_fails_at_once_takes_nothing(
        self, sandbox: Sandbox, api: stripe.StripeClient, payment: str
    ) -> None:
        sandbox.set_balance("eur", 5000)
        sandbox.change_payment(payment, refund_status="failed")
        refund(api, payment, 5000)
        sandbox.change_payment(payment, refund_status="succeeded")
        assert refund(api, payment, 5000, key="again").status == "succeeded"

    @pytest.mark.parametrize(
        ("fault", "code"),
        [
            ("balance_insufficient", "balance_insufficient"),
            ("balance_insufficient_uncoded", None),
        ],
    )
    def test_a_fault_refuses_as_it_does(
        self,
        sandbox: Sandbox,
        api: stripe.StripeClient,
        payment: str,
        fault: str,
        code: str | None,
    ) -> None:
        sandbox.fail(fault)
        for _ in range(2):
            with pytest.raises(stripe.InvalidRequestError, match="Insufficient funds") as refused:
                refund(api, payment)
            assert code_of(refused) == code
        assert (refused.value.headers or {})["idempotent-replayed"] == "true"
        assert sandbox.refunds == []


class TestFaultsOfReading:
    def test_they_fit_payments_and_charges_too(
        self, sandbox: Sandbox, api: stripe.StripeClient, payment: str
    ) -> None:
        charge = look(api, payment).latest_charge
        other = sandbox.payment(amount=1, currency="eur")
        sandbox.fail("unavailable", times=0, payment=payment, method="GET")
        for ask in (
            lambda: look(api, payment),
            lambda: api.v1.charges.retrieve(charge),
            lambda: api.v1.refunds.list({"charge": charge}),
        ):
            with pytest.raises(stripe.APIError):
                ask()
        assert look(api, other).id == other
        assert refund(api, payment).id


class TestControl:
    @pytest.mark.parametrize("remote", [True, False])
    def test_other_processes_say_the_same(
        self, sandbox: Sandbox, api: stripe.StripeClient, remote: bool
    ) -> None:
        control: Any = Remote(sandbox.url) if remote else sandbox
        payment = control.payment(
            amount=1000, currency="eur", metadata={"booking_id": "B"}, status="requires_capture"
        )
        assert control.change_payment(payment, status="succeeded")["amount_received"] == 1000
        control.set_balance("eur", 500)
        with pytest.raises(stripe.InvalidRequestError, match="Insufficient funds"):
            refund(api, payment, 1000)
        control.set_balance("eur", None)
        assert refund(api, payment, 1000, key="again").amount == 1000

    @pytest.mark.parametrize("remote", [True, False])
    def test_what_can_not_be_is_refused(self, sandbox: Sandbox, remote: bool) -> None:
        control: Any = Remote(sandbox.url) if remote else sandbox
        payment = control.payment(amount=1, currency="eur")
        wrong: tuple[tuple[Callable[[], object], str], ...] = (
            (lambda: control.payment(amount=1, currency="eur", status="paid"), "status"),
            (lambda: control.payment(amount=1, currency="eur", metadata={"a": 1}), "metadata"),
            (lambda: control.change_payment(payment, status="failed"), "status"),
            (lambda: control.set_balance("EUR", 1), "currency"),
            (lambda: control.set_balance("eur", "much"), "minor_units"),
        )
        for call, problem in wrong:
            with pytest.raises(ValueError, match=problem):
                call()
