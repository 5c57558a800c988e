"""Refunds on a real database and, over HTTP, on a Stripe of our own."""

from typing import Any

import pytest

from booking_platform.development.stripe_sandbox import Sandbox
from booking_platform.messaging import inbox, leases
from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from booking_platform.messaging.rules import CONSUMERS
from payments.keys import idempotency_key
from payments.models import IdempotencyStore, Refund
from tests.events import cancelled, deliveries
from tests.integration.refunds import QUEUE, cancel, only, sweep_until_quiet
from tests.platform import parked

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]


class TestModel:
    def test_its_users_know_it_by_the_name_of_its_table(self) -> None:
        assert IdempotencyStore is Refund
        assert Refund._meta.db_table == "idempotency_store"


class TestRequests:
    def test_a_cancellation_is_refunded(self, stripe: Sandbox, payment: str) -> None:
        cancel("BK-1", payment, 99.99)
        row = only()
        assert (row.status, row.stripe_status, row.needs_review) == (
            "completed",
            "succeeded",
            False,
        )
        [refund] = stripe.refunds
        assert refund["id"] == row.stripe_refund_id
        assert (refund["amount"], refund["currency"]) == (9_999, "eur")
        assert refund["metadata"] == {
            "booking_id": "BK-1",
            "idempotency_key": idempotency_key("BK-1", payment),
            "seats_remaining": "0",
        }
        assert row.next_attempt_at is None
        assert row.lease_until is None
        assert ProcessedEvent.objects.get().outcome == "refund_requested"

    def test_a_fault_after_the_commit_parks_nothing(
        self, stripe: Sandbox, payment: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_given: Any) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(leases, "carry_on", broken)
        cancel("BK-1", payment)
        assert parked() == []
        assert only().status == "in_progress"
        assert only().lease_until is not None

    @pytest.mark.parametrize(("payment_id", "amount"), [(None, None), (None, 0), ("pi_1", 0)])
    def test_nothing_to_refund_is_recorded(
        self, stripe: Sandbox, payment_id: str | None, amount: int | None
    ) -> None:
        cancel("BK-1", payment_id, amount)
        assert ProcessedEvent.objects.get().outcome == "nothing_to_refund"
        assert Refund.objects.count() == 0
        assert stripe.requests == []

    @pytest.mark.parametrize(
        ("over", "detail"),
        [
            ({"payment": "pi_1", "amount": None}, "payload.amount is missing"),
            ({"payment": None, "amount": 150.0}, "payload.paymentId is missing"),
            ({"payment": "pi_1", "amount": -1}, "payload.amount is -1: it must not be negative"),
            ({"payment": None, "amount": -1}, "payload.amount is -1"),
            (
                {"payment": "pi_1", "amount": 10.005},
                "payload.amount is 10.005: no currency goes in steps below 0.01",
            ),
            (
                {"payment": "pi_1", "amount": 10.005, "currency": "eur"},
                "is 10.005: EUR goes in steps",
            ),
            (
                {"payment": "pi_1", "amount": 10**12},
                "payload.amount is 1000000000000: more than Stripe",
            ),
            ({"payment": "pi_1", "amount": 0.1 + 0.2}, "payload.amount is 0.30000000000000004"),
            ({"payment": "pi_1", "currency": "zzz"}, "payload.currency is 'zzz'"),
            ({"payment": "pi_1", "currency": "jpy", "amount": 0.5}, "JPY goes in steps of 1"),
        ],
    )
    def test_what_can_not_be_refunded_exactly_is_parked(
        self, stripe: Sandbox, over: dict[str, Any], detail: str
    ) -> None:
        cancel("BK-1", **{"amount": 150.0, **over})
        [letter] = DeadLetter.objects.all()
        assert letter.reason == "invalid"
        assert detail in letter.detail
        assert Refund.objects.count() == 0
        assert stripe.requests == []

    @pytest.mark.parametrize("amount", ["NaN", "1e400", "Infinity", '"150,00"', "true"])
    def test_what_is_no_amount_is_parked(self, stripe: Sandbox, amount: str) -> None:
        event = deliveries(cancelled(1, "BK-1", paymentId="pi_1", amount=123456))[0]
        body = event.body.replace(b"123456", amount.encode())
        inbox.process(CONSUMERS[QUEUE], [event._replace(body=body)])
        assert len(parked()) == 1
        assert Refund.objects.count() == 0

    def test_an_amount_may_be_written_as_a_string(self, stripe: Sandbox, payment: str) -> None:
        cancel("BK-1", payment, "80.00")
        assert [refund["amount"] for refund in stripe.refunds] == [8_000]

    @pytest.mark.parametrize(
        ("amount", "currency", "units"),
        [(1500, "jpy", 1500), (1500, "isk", 150_000), (1.5, "kwd", 1500), (150.0, "EUR", 15_000)],
    )
    def test_amounts_are_sent_in_stripes_minor_units(
        self, stripe: Sandbox, amount: float, currency: str, units: int
    ) -> None:
        payment = stripe.payment(amount=units, currency=currency.lower())
        cancel("BK-1", payment, amount, currency=currency)
        assert [refund["amount"] for refund in stripe.refunds] == [units]
        assert only().status == "completed"


class TestOnceForABooking:
    def test_the_same_under_a_new_id_refunds_nothing_more(
        self, stripe: Sandbox, payment: str
    ) -> None:
        for _ in range(3):
            cancel("BK-1", payment, 50, seatsRemaining=0)  # Stripe would accept it thrice
        assert len(stripe.refunds) == 1
        outcomes = ProcessedEvent.objects.order_by("pk").values_list("outcome", flat=True)
        assert list(outcomes) == ["refund_requested", "refund_known", "refund_known"]

    @pytest.mark.parametrize(
        "other",
        [
            {"amount": 51},
            {"currency": "usd"},
            {"payment": None, "amount": None},
        ],
    )
    def test_another_wish_for_the_same_booking_is_parked(
        self, stripe: Sandbox, payment: str, other: dict[str, Any]
    ) -> None:
        cancel("BK-1", payment, 50)
        cancel("BK-1", **{"payment": payment, "amount": 50, **other})
        [letter] = DeadLetter.objects.all()
        assert letter.reason == "differs"
        assert "50.00 EUR" in letter.detail
        assert len(stripe.refunds) == 1

    def test_a_wish_after_a_cancellation_without_one_is_parked(
        self, stripe: Sandbox, payment: str
    ) -> None:
        cancel("BK-1", None, None)
        cancel("BK-1", None, None)
        cancel("BK-1", payment, 50)
        assert [reason for reason, _ in parked()] == ["differs"]
        assert stripe.refunds == []

    def test_bookings_that_share_a_payment_are_refunded_each(
        self, stripe: Sandbox, payment: str
    ) -> None:
        cancel("BK-1", payment, 50)
        cancel("BK-2", payment, 50)
        assert [refund["amount"] for refund in stripe.refunds] == [5_000, 5_000]
        assert set(Refund.objects.values_list("status", flat=True)) == {"completed"}


class TestRefundsThatMove:
    def test_a_refund_that_the_bank_sends_back_waits_for_a_person(
        self, stripe: Sandbox, payment: str
    ) -> None:
        cancel("BK-1", payment, 60)
        refund_id = only().stripe_refund_id or ""
        stripe.change_refund(refund_id, status="failed", failure_reason="expired_or_canceled_card")
        leases.mark_due(Refund.objects.all())
        sweep_until_quiet()
        row = only()
        assert (row.status, row.stripe_status, row.needs_review) == ("completed", "failed", True)
        assert "expired_or_canceled_card" in row.last_error

    def test_settled_it_stays_settled_until_it_moves(self, stripe: Sandbox, payment: str) -> None:
        cancel("BK-1", payment, 60)
        refund_id = only().stripe_refund_id or ""
        for status, review in (("failed", True), ("failed", False), ("succeeded", True)):
            stripe.change_refund(refund_id, status=status)
            leases.mark_due(Refund.objects.all())
            sweep_until_quiet()
            assert only().needs_review is review
            if review:
                assert only().settle(by="ann", why="paid by bank transfer")

    def test_a_pending_refund_is_completed(self, stripe: Sandbox, payment: str) -> None:
        stripe.change_payment(payment, refund_status="pending")
        cancel("BK-1", payment, 60)
        assert (only().status, only().stripe_status) == ("completed", "pending")
        assert not only().needs_review
