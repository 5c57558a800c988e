"""Refunds to the right payment: what the look before the first send finds, at a Stripe of our own."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from booking_platform.development.stripe_sandbox import Sandbox
from booking_platform.messaging import inbox
from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from booking_platform.messaging.rules import CONSUMERS
from payments import stripe_gateway
from payments.answers import StripeRefusal
from payments.keys import booking_key
from payments.models import Refund
from tests.events import cancelled, deliveries
from tests.factories import RefundFactory, past
from tests.integration.refunds import QUEUE, by_hand, cancel, only, sweep_until_quiet

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]

NAMED = {"booking_id": "BK-1"}


def methods(stripe: Sandbox) -> list[str]:
    return [one.method for one in stripe.requests]


def refunded(stripe: Sandbox) -> list[tuple[str, int, str]]:
    return [(one["payment_intent"], one["amount"], one["currency"]) for one in stripe.refunds]


def waits_unsent(stripe: Sandbox, code: str, row: Refund | None = None) -> None:
    """Check that a refund waits for a person, and that nothing was sent for it, whatever is tried."""
    sent = methods(stripe).count("POST")
    row = row or only()
    for _ in range(2):
        assert (row.needs_review, row.review_code, row.first_sent_at) == (True, code, None)
        assert row.request_payload == {}
        assert row.next_attempt_at is None
        assert row.try_again()
        sweep_until_quiet()
        row.refresh_from_db()
    assert methods(stripe).count("POST") == sent


class TestTheCurrency:
    def test_one_that_no_event_names_is_the_payments(self, stripe: Sandbox) -> None:
        """A guess paid out JPY 150,000."""
        payment = stripe.payment(amount=200_000, currency="jpy")
        cancel("BK-1", payment, 1500)
        assert refunded(stripe) == [(payment, 1500, "jpy")]
        row = only()
        assert (row.status, row.needs_review) == ("completed", False)
        assert (row.amount_minor, row.currency, row.amount) == (1500, "jpy", "1500 JPY")
        assert methods(stripe) == ["GET", "POST"]

    def test_another_than_the_payments_waits_for_a_person(self, stripe: Sandbox) -> None:
        cancel("BK-1", stripe.payment(amount=200_000, currency="jpy"), 15, currency="EUR")
        waits_unsent(stripe, "other_currency")
        assert only().status == "failed"
        assert "names EUR, the payment is in JPY" in only().last_error
        assert stripe.refunds == []

    def test_an_amount_that_the_payments_currency_does_not_have_waits(
        self, stripe: Sandbox
    ) -> None:
        cancel("BK-1", stripe.payment(amount=200_000, currency="jpy"), 15.5)
        waits_unsent(stripe, "no_exact_amount")
        assert "15.50 is no amount that JPY has" in only().last_error

    def test_the_amount_is_not_known_to_staff_before_the_look(self, stripe: Sandbox) -> None:
        stripe.fail("unavailable", method="GET", times=0)
        cancel("BK-1", stripe.payment(amount=200_000, currency="jpy"), 1500)
        assert only().amount == "1500.00, in the payment's currency"
        assert str(only()) == "BK-1: 1500.00, in the payment's currency, in_progress"


class TestThePayment:
    def test_one_that_does_not_cover_the_amount_is_not_asked(
        self, stripe: Sandbox, payment: str
    ) -> None:
        cancel("BK-1", payment, 100)
        cancel("BK-2", payment, 60)
        row = Refund.objects.get(booking_id="BK-2")
        waits_unsent(stripe, "not_covered", row)
        assert "60.00 EUR are asked for; 150.00 EUR were received, 100.00 EUR refunded" in (
            row.last_error
        )

    @pytest.mark.parametrize("status", ["requires_payment_method", "canceled"])
    def test_one_that_is_not_paid_waits_for_a_person(self, stripe: Sandbox, status: str) -> None:
        cancel("BK-1", stripe.payment(amount=15_000, currency="eur", status=status), 60)
        waits_unsent(stripe, "not_paid")

    @pytest.mark.parametrize("payment", ["pi_nowhere", "ch_nowhere", "py_nowhere", "..", "x/y"])
    def test_one_that_is_not_there_waits_for_a_person(self, stripe: Sandbox, payment: str) -> None:
        cancel("BK-1", payment, 60)
        waits_unsent(stripe, "no_such_payment")
        assert only().status == "failed"

    def test_one_that_is_still_processing_is_waited_for(self, stripe: Sandbox) -> None:
        payment = stripe.payment(amount=15_000, currency="eur", status="processing")
        cancel("BK-1", payment, 60)
        row = only()
        assert (row.status, row.needs_review) == ("in_progress", False)
        assert row.next_attempt_at is not None
        assert "still processing" in row.last_error
        stripe.change_payment(payment, status="succeeded")
        Refund.objects.update(next_attempt_at=past())
        sweep_until_quiet()
        assert refunded(stripe) == [(payment, 6_000, "eur")]
        assert only().status == "completed"

    @pytest.mark.parametrize("kind", ["ch", "py"])
    def test_it_may_be_named_as_a_charge(self, stripe: Sandbox, kind: str) -> None:
        charge = f"{kind}_sandbox_15000_eur_x"
        cancel("BK-1", charge, 60)
        [refund] = stripe.refunds
        assert (refund["charge"], refund["amount"]) == (charge, 6_000)
        assert (only().status, only().needs_review) == ("completed", False)

    def test_it_may_be_named_as_the_charge_of_an_intent(
        self, stripe: Sandbox, payment: str
    ) -> None:
        charge = stripe.account.payments[payment].charge
        cancel("BK-1", charge, 60)
        assert refunded(stripe) == [(payment, 6_000, "eur")]
        assert (only().status, only().needs_review) == ("completed", False)

    def test_metadata_may_name_the_booking_on_it(self, stripe: Sandbox) -> None:
        for name in ("booking_id", "bookingId"):
            payment = stripe.payment(amount=9_000, currency="eur", metadata={name: name})
            cancel(name, payment, 60)
        assert len(stripe.refunds) == 2

    def test_one_of_another_booking_waits_and_can_be_approved(self, stripe: Sandbox) -> None:
        payment = stripe.payment(amount=9_000, currency="eur", metadata={"booking_id": "BK-2"})
        cancel("BK-1", payment, 60)
        waits_unsent(stripe, "other_booking")
        assert "'BK-2'" in only().last_error
        assert only().approve(by="ann", why="rebooked")
        sweep_until_quiet()
        assert refunded(stripe) == [(payment, 6_000, "eur")]
        row = only()
        assert (row.status, row.approved_by, row.approval) == ("completed", "ann", "rebooked")
        assert (row.approved_codes, row.review_code) == ("other_booking", "")


class TestDepositAndBalance:
    def payments(self, stripe: Sandbox, **of_balance: str) -> tuple[str, str]:
        deposit = stripe.payment(amount=9_000, currency="eur", metadata=NAMED)
        balance = stripe.payment(amount=20_000, currency="eur", metadata=of_balance)
        return deposit, balance

    def test_both_are_refunded_where_the_metadata_name_the_booking(self, stripe: Sandbox) -> None:
        deposit, balance = self.payments(stripe, booking_id="BK-1")
        cancel("BK-1", deposit, 50)
        cancel("BK-1", balance, 200)
        assert refunded(stripe) == [(deposit, 5_000, "eur"), (balance, 20_000, "eur")]
        rows = Refund.objects.order_by("pk").values_list("status", "further_payment")
        assert list(rows) == [("completed", False), ("completed", True)]
        assert not DeadLetter.objects.exists()

    def test_a_further_one_without_a_name_waits_and_can_be_approved(self, stripe: Sandbox) -> None:
        deposit, balance = self.payments(stripe)
        cancel("BK-1", deposit, 50)
        cancel("BK-1", balance, 200)
        row = Refund.objects.get(payment_id=balance)
        waits_unsent(stripe, "unnamed_payment", row)
        row.refresh_from_db()
        assert row.approve(by="ann", why="it is the balance")
        sweep_until_quiet()
        assert refunded(stripe) == [(deposit, 5_000, "eur"), (balance, 20_000, "eur")]

    def test_one_payment_under_two_ids_is_refunded_once(self, stripe: Sandbox) -> None:
        deposit, _ = self.payments(stripe)
        charge = stripe.account.payments[deposit].charge
        stripe.fail("drop_before", times=1)
        cancel("BK-1", deposit, 40)
        cancel("BK-1", charge, 40)
        row = Refund.objects.get(payment_id=charge)
        assert (row.status, row.review_code) == ("failed", "same_payment")
        sweep_until_quiet()
        assert refunded(stripe) == [(deposit, 4_000, "eur")]
        waits_unsent(stripe, "same_payment", row)

    def test_one_payment_under_two_ids_is_refunded_for_each_step(self, stripe: Sandbox) -> None:
        deposit, _ = self.payments(stripe)
        cancel("BK-1", deposit, 40, seatsRemaining=1)
        cancel("BK-1", stripe.account.payments[deposit].charge, 40, seatsRemaining=0)
        assert refunded(stripe) == [(deposit, 4_000, "eur")] * 2


class TestRestoredBackups:
    @pytest.mark.parametrize("same_id", [True, False])
    @pytest.mark.parametrize("left", [0, 9_000])
    def test_a_refund_that_the_store_has_forgotten_is_found(
        self, stripe: Sandbox, same_id: bool, left: int
    ) -> None:
        payment = stripe.payment(amount=6_000 + left, currency="eur")
        event = cancelled(1, "BK-1", paymentId=payment, amount=60, event_id="e1")
        inbox.process(CONSUMERS[QUEUE], deliveries(event))
        made = only().stripe_refund_id
        Refund.objects.all().delete()
        ProcessedEvent.objects.all().delete()
        stripe.advance(2 * 24 * 3600)  # its key is forgotten
        again = event if same_id else cancelled(1, "BK-1", paymentId=payment, amount=60)
        inbox.process(CONSUMERS[QUEUE], deliveries(again))
        sweep_until_quiet()
        row = only()
        assert (row.status, row.needs_review, row.stripe_refund_id) == ("completed", False, made)
        assert (row.amount_minor, row.currency) == (6_000, "eur")
        assert len(stripe.refunds) == 1

    def test_one_that_the_version_before_has_made_is_found(
        self, stripe: Sandbox, payment: str
    ) -> None:
        noted = {"booking_id": "BK-1", "idempotency_key": booking_key("BK-1")}
        request = {"payment_intent": payment, "amount": 6_000, "metadata": noted}
        stripe_gateway.send(request, booking_key("BK-1"))
        cancel("BK-1", payment, 60)
        assert (only().status, only().needs_review) == ("completed", False)
        assert len(stripe.refunds) == 1

    def test_what_was_refunded_by_hand_waits_and_can_be_approved(
        self, stripe: Sandbox, payment: str
    ) -> None:
        by_hand(stripe, payment)
        cancel("BK-1", payment, 60)
        waits_unsent(stripe, "by_hand")
        assert only().approve(by="ann", why="that was for something else")
        sweep_until_quiet()
        assert [one["amount"] for one in stripe.refunds] == [100, 6_000]


class TestLateEvents:
    def test_what_was_refunded_by_hand_while_the_event_waited_is_seen(
        self, stripe: Sandbox, payment: str
    ) -> None:
        by_hand(stripe, payment)
        stripe.account.refunds[stripe.refunds[0]["id"]]["created"] -= 3 * 3600
        hours_ago = (timezone.now() - timedelta(hours=4)).isoformat()
        cancel("BK-1", payment, 60, timestamp=hours_ago)
        waits_unsent(stripe, "by_hand")

    def test_what_was_refunded_by_hand_before_is_no_obstacle(
        self, stripe: Sandbox, payment: str
    ) -> None:
        by_hand(stripe, payment)
        stripe.account.refunds[stripe.refunds[0]["id"]]["created"] -= 3 * 3600
        cancel("BK-1", payment, 60)
        assert [one["amount"] for one in stripe.refunds] == [100, 6_000]


class TestLimits:
    def test_more_than_the_limit_waits_and_can_be_approved(
        self, stripe: Sandbox, payment: str, settings: Any
    ) -> None:
        settings.REFUND_REVIEW_ABOVE = {"eur": 5_999}
        cancel("BK-1", payment, 60)
        waits_unsent(stripe, "above_limit")
        assert only().approve(by="ann", why="a whole family")
        sweep_until_quiet()
        assert refunded(stripe) == [(payment, 6_000, "eur")]

    def test_what_can_not_be_approved_is_not(self, stripe: Sandbox, payment: str) -> None:
        cancel("BK-1", payment, 151)
        assert not only().approve(by="ann", why="x")
        cancel("BK-2", payment, 150)
        done = Refund.objects.get(booking_id="BK-2")
        assert not done.approve(by="ann", why="x")
        assert len(stripe.refunds) == 1

    def test_an_approval_of_what_changed_meanwhile_is_none(
        self, stripe: Sandbox, payment: str, settings: Any
    ) -> None:
        settings.REFUND_REVIEW_ABOVE = {"eur": 1}
        cancel("BK-1", payment, 60)
        as_read = only()
        assert only().settle(by="bob", why="paid in cash")
        assert not as_read.approve(by="ann", why="x")
        assert not only().approve(by="ann", why="x")
        sweep_until_quiet()
        assert stripe.refunds == []


class TestTheVersionBefore:
    def guessed(self, payment: str, **columns: Any) -> Refund:
        """Store a refund as the version before did for an event without a currency."""
        key = booking_key("BK-1")
        request = {"payment_intent": payment, "amount": 150_000, "metadata": {"booking_id": "BK-1"}}
        return RefundFactory.create(
            booking_id="BK-1",
            payment_id=payment,
            amount_minor=150_000,
            currency="eur",
            idempotency_key=key,
            request_payload=request,
            next_attempt_at=past(),
            **columns,
        )

    @pytest.mark.parametrize("sent_before", [True, False])
    def test_its_guess_at_the_currency_is_not_sent(
        self, stripe: Sandbox, sent_before: bool
    ) -> None:
        payment = stripe.payment(amount=200_000, currency="jpy")
        self.guessed(payment, first_sent_at=timezone.now() if sent_before else None)
        sweep_until_quiet()
        assert (only().needs_review, only().review_code) == (True, "other_currency")
        assert stripe.refunds == []

    @pytest.mark.parametrize("sent_before", [True, False])
    def test_what_it_has_left_is_sent_under_its_key(
        self, stripe: Sandbox, sent_before: bool
    ) -> None:
        payment = stripe.payment(amount=200_000, currency="eur")
        row = self.guessed(payment, first_sent_at=timezone.now() if sent_before else None)
        sweep_until_quiet()
        assert refunded(stripe) == [(payment, 150_000, "eur")]
        assert [one.key for one in stripe.requests if one.method == "POST"] == [row.idempotency_key]
        assert (only().status, only().needs_review) == ("completed", False)

    def test_it_moves_no_money_for_a_row_that_nobody_has_looked_at(
        self, stripe: Sandbox, payment: str
    ) -> None:
        stripe.fail("unavailable", method="GET")
        cancel("BK-1", payment, 60)
        row = only()
        answer = stripe_gateway.send(row.request_payload, row.idempotency_key)
        assert isinstance(answer, StripeRefusal)
        Refund.objects.update(first_sent_at=timezone.now())  # and so it writes
        sweep_until_quiet()
        assert refunded(stripe) == [(payment, 6_000, "eur")]
        assert only().status == "completed"


class TestWhatAPersonHasSeen:
    def test_an_approval_of_something_else_lets_no_refund_by_hand_pass(
        self, stripe: Sandbox, settings: Any
    ) -> None:
        settings.REFUND_REVIEW_ABOVE = {"eur": 1}
        payment = stripe.payment(amount=15_000, currency="eur")
        by_hand(stripe, payment)
        cancel("BK-1", payment, 1)
        assert only().review_code == "by_hand"
        assert only().approve(by="ann", why="it was for the lunch")
        sweep_until_quiet()
        assert only().review_code == "above_limit"

        by_hand(stripe, payment, key="in the meantime")
        assert only().approve(by="bob", why="it is right")
        sweep_until_quiet()

        assert only().review_code == "by_hand"
        assert len(stripe.refunds) == 2
        assert only().approval == "it was for the lunch\nbob, above_limit: it is right"

    def test_one_that_was_made_since_the_page_was_shown_stops_it(self, stripe: Sandbox) -> None:
        payment = stripe.payment(amount=15_000, currency="eur")
        by_hand(stripe, payment)
        cancel("BK-1", payment, 1)
        by_hand(stripe, payment, key="in the meantime")

        assert only().approve(by="ann", why="it was for the lunch")
        sweep_until_quiet()

        assert only().review_code == "by_hand"
        assert len(stripe.refunds) == 2

    def test_what_a_restored_backup_has_forgotten_under_another_id_waits(
        self, stripe: Sandbox
    ) -> None:
        payment = stripe.payment(amount=15_000, currency="eur")
        cancel("BK-1", payment, 20, seatsRemaining=2)
        [made] = stripe.refunds
        Refund.objects.all().delete()
        ProcessedEvent.objects.all().delete()

        cancel("BK-1", made["charge"], 20, seatsRemaining=2)

        assert only().review_code == "forgotten"
        assert len(stripe.refunds) == 1

    def test_what_an_earlier_look_has_found_is_not_approved_with_something_else(self) -> None:
        waits = RefundFactory.create(needs_review=True, review_code="above_limit", by_hand="re_9")
        assert waits.approve(by="bob", why="it is right")

        assert only().approved_by_hand == ""
