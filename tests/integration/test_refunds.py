"""Refunds on a real database and, over HTTP, on a Stripe of our own."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from booking_platform.development.stripe_sandbox import Sandbox
from booking_platform.messaging import inbox, leases
from booking_platform.messaging.leases import LeaseLost
from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from booking_platform.messaging.rules import CONSUMERS
from payments import attempts, stripe_gateway, tasks
from payments.models import Refund, idempotency_key
from tests.events import cancelled, deliveries
from tests.factories import RefundFactory
from tests.platform import parked
from tests.servers import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

QUEUE = "payment-gateway.booking-cancelled"
FAULTS = (
    "drop_before", "drop_after", "error_before", "error_after", "unavailable", "failed_dependency",
    "rate_limited", "unauthorized", "forbidden", "conflict", "garbage", "truncated",
    "not_a_refund",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(settings: Any) -> None:
    settings.RETRY_BASE_SECONDS = settings.RETRY_MAX_SECONDS = 0.0


@pytest.fixture
def payment(stripe: Sandbox) -> str:
    return stripe.payment(amount=15_000, currency="eur")


def cancel(booking: str, payment: str | None, amount: Any = 150.0, **over: Any) -> None:
    refund = {"paymentId": payment, "amount": amount}
    inbox.process(CONSUMERS[QUEUE], deliveries(cancelled(1, booking, **refund, **over)))


def sweep_until_quiet(limit: int = 30) -> None:
    """Attempt what is due, as the sweep would, until nothing is."""
    for _ in range(limit):
        due = leases.due(Refund.objects.all(), timezone.now())
        pks = list(due.values_list("pk", flat=True))
        if not pks:
            return
        for pk in pks:
            tasks.attempt(pk)
    pytest.fail("refunds are due again and again")


def expire_lease() -> None:
    past = timezone.now() - timedelta(seconds=1)
    Refund.objects.exclude(lease_until=None).update(lease_until=past)


def only() -> Refund:
    return Refund.objects.get()


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
            "idempotency_key": idempotency_key("BK-1"),
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
            ({"payment": "pi_1", "amount": 10.005}, "payload.amount is 10.005: EUR goes in steps"),
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

    @pytest.mark.parametrize("amount", ["NaN", "1e400", "Infinity", '"150"', "true"])
    def test_what_is_no_amount_is_parked(self, stripe: Sandbox, amount: str) -> None:
        event = deliveries(cancelled(1, "BK-1", paymentId="pi_1", amount=123456))[0]
        body = event.body.replace(b"123456", amount.encode())
        inbox.process(CONSUMERS[QUEUE], [event._replace(body=body)])
        assert len(parked()) == 1
        assert Refund.objects.count() == 0

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
            cancel("BK-1", payment, 50)  # Stripe would accept it thrice
        assert len(stripe.refunds) == 1
        outcomes = ProcessedEvent.objects.order_by("pk").values_list("outcome", flat=True)
        assert list(outcomes) == ["refund_requested", "refund_known", "refund_known"]

    @pytest.mark.parametrize(
        "other",
        [
            {"amount": 51},
            {"currency": "usd"},
            {"payment": "pi_2"},
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


class TestFaults:
    @pytest.mark.parametrize("times", [1, 3])
    @pytest.mark.parametrize("fault", FAULTS)
    def test_each_ends_in_one_refund_or_before_a_person(
        self, stripe: Sandbox, payment: str, fault: str, times: int
    ) -> None:
        """60 of 150 euros: Stripe would take it twice."""
        stripe.fail(fault, times=times)
        cancel("BK-1", payment, 60)
        sweep_until_quiet()
        row = only()
        if fault == "error_before":  # Stripe keeps that answer under the key
            assert stripe.refunds == []
            assert row.needs_review
            assert "keeps this answer" in row.last_error
        else:
            assert [refund["id"] for refund in stripe.refunds] == [row.stripe_refund_id]
            assert (row.status, row.needs_review) == ("completed", False)

    @pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "error_before"])
    def test_one_that_lasts_is_given_up_in_the_end_before_a_person(
        self, stripe: Sandbox, payment: str, fault: str, settings: Any
    ) -> None:
        settings.RETRY_ATTEMPTS = 5
        stripe.fail(fault, times=0)
        stripe.fail(fault, times=0, method="GET")
        cancel("BK-1", payment, 60)
        sweep_until_quiet()
        row = only()
        assert (row.status, row.needs_review) == ("in_progress", True)
        assert "given up after 6 attempts" in row.last_error
        stripe.clear_faults()
        assert row.try_again()
        sweep_until_quiet()
        assert len(stripe.refunds) == 1
        assert only().status == "completed"
        assert not only().needs_review

    def test_every_attempt_sends_the_same_bytes_under_the_same_key(
        self, stripe: Sandbox, payment: str
    ) -> None:
        stripe.fail("drop_before", times=4)
        cancel("BK-1", payment, 60)
        sweep_until_quiet()
        sent = [one for one in stripe.requests if one.method == "POST"]
        assert len(sent) == 5
        assert len({(one.key, one.body) for one in sent}) == 1

    def test_what_was_executed_is_found_even_if_the_key_is_forgotten(
        self, stripe: Sandbox, payment: str
    ) -> None:
        stripe.fail("drop_after")
        cancel("BK-1", payment, 60)
        stripe.advance(25 * 3600)
        age(hours=25)
        sweep_until_quiet()
        assert len(stripe.refunds) == 1
        assert only().status == "completed"

    def test_an_attempt_older_than_23_hours_does_not_send(
        self, stripe: Sandbox, payment: str
    ) -> None:
        stripe.fail("drop_before")
        cancel("BK-1", payment, 60)
        stripe.advance(23 * 3600)
        age(hours=23)
        sweep_until_quiet()
        assert [one.method for one in stripe.requests].count("POST") == 1
        assert stripe.refunds == []
        row = only()
        assert row.needs_review
        assert "Stripe lists no refund" in row.last_error

    def test_a_refusal_is_failed_once_nothing_is_listed(
        self, stripe: Sandbox, payment: str
    ) -> None:
        cancel("BK-1", payment, 151)
        row = only()
        assert (row.status, row.needs_review) == ("failed", True)
        assert "greater than unrefunded amount" in row.last_error
        assert [one.method for one in stripe.requests] == ["POST", "GET"]

    def test_a_refusal_is_no_verdict_without_the_list(self, stripe: Sandbox, payment: str) -> None:
        stripe.fail("unavailable", method="GET")
        cancel("BK-1", payment, 151)
        assert (only().status, only().needs_review) == ("in_progress", False)
        sweep_until_quiet()
        assert only().status == "failed"

    def test_a_payment_that_does_not_exist_fails(self, stripe: Sandbox) -> None:
        cancel("BK-1", "pi_nowhere", 60)
        assert only().status == "failed"
        assert "No such payment_intent" in only().last_error

    def test_a_disputed_payment_waits_for_a_person(self, stripe: Sandbox, payment: str) -> None:
        stripe.change_payment(payment, disputed=True)
        cancel("BK-1", payment, 60)
        assert (only().status, only().needs_review) == ("failed", True)
        assert "charge_disputed" in only().last_error

    def test_a_changed_request_waits_for_a_person(self, stripe: Sandbox, payment: str) -> None:
        stripe.fail("drop_before")
        cancel("BK-1", payment, 60)
        stripe.fail("error_before")
        sweep_until_quiet()
        Refund.objects.update(
            request_payload=only().request_payload | {"amount": 6_001},
            needs_review=False,
            next_attempt_at=timezone.now(),
        )
        sweep_until_quiet()
        assert only().needs_review
        assert "other parameters" in only().last_error
        assert stripe.refunds == []

    def test_a_dripping_answer_that_outlives_the_lease_refunds_once(
        self, stripe: Sandbox, payment: str, settings: Any
    ) -> None:
        settings.LEASE_SECONDS = 0.2
        stripe.fail("slow_before", seconds=1.0)
        done = in_thread(lambda: cancel("BK-1", payment, 60))
        wait_until(lambda: len(stripe.requests) == 1, seconds=10, what="the first call")
        wait_until(lambda: bool(due()), seconds=10, what="the lease has ended")
        tasks.attempt(only().pk)  # while the first still waits: Stripe answers 409
        assert only().status == "in_progress"
        done()
        sweep_until_quiet()
        assert len(stripe.refunds) == 1
        assert only().status == "completed"


class TestLeases:
    @pytest.fixture
    def held(self, stripe: Sandbox, payment: str) -> Refund:
        """A refund whose holder froze, and whose lease has ended."""
        row = RefundFactory.create(payment_id=payment, next_attempt_at=timezone.now())
        taken = leases._take(Refund.objects.filter(pk=row.pk))
        assert taken is not None
        expire_lease()
        taken.refresh_from_db()
        return taken

    def test_a_stale_holder_can_not_overwrite_its_successor(
        self, stripe: Sandbox, held: Refund
    ) -> None:
        tasks.attempt(held.pk)
        assert only().status == "completed"
        with pytest.raises(LeaseLost):
            leases.write(held, status="failed", needs_review=True)
        assert (only().status, only().needs_review) == ("completed", False)

    def test_a_late_answer_counts_while_nobody_else_has_asked(
        self, stripe: Sandbox, held: Refund
    ) -> None:
        leases.write(held, last_error="late")
        assert only().last_error == "late"

    def test_no_call_starts_after_the_lease_has_ended(self, stripe: Sandbox, held: Refund) -> None:
        for held.first_sent_at in (None, timezone.now()):  # to send, to look
            with pytest.raises(LeaseLost):
                attempts._ask(held)
        assert stripe.requests == []

    def test_what_is_under_lease_is_not_taken_though_it_is_marked_due(
        self, stripe: Sandbox, payment: str
    ) -> None:
        rows = Refund.objects.all()
        RefundFactory.create(payment_id=payment, next_attempt_at=timezone.now())
        assert leases._take(rows) is not None
        leases.mark_due(rows)
        assert leases._take(rows) is None

    def test_what_is_marked_due_does_not_wait_for_the_pause_of_the_attempt_under_way(
        self, stripe: Sandbox, payment: str, settings: Any
    ) -> None:
        settings.RETRY_BASE_SECONDS = settings.RETRY_MAX_SECONDS = 10**6
        row = RefundFactory.create(payment_id=payment, next_attempt_at=timezone.now())

        def told_meanwhile(_row: Refund) -> leases.Conclusion:
            leases.mark_due(Refund.objects.all())
            return leases.Conclusion(again=True)

        leases.take_up(Refund.objects.all(), told_meanwhile)
        assert due() == [row.pk]

    def test_only_one_of_many_takes_a_refund(self, stripe: Sandbox, payment: str) -> None:
        row = RefundFactory.create(payment_id=payment, next_attempt_at=timezone.now())
        stripe.fail("slow_before", seconds=0.3)
        waits = [in_thread(lambda: tasks.attempt(row.pk)) for _ in range(8)]
        for wait in waits:
            wait()
        assert [one.method for one in stripe.requests] == ["POST"]
        assert only().attempts == 1

    def test_what_is_marked_due_during_an_attempt_is_taken_up_again(
        self, stripe: Sandbox, payment: str
    ) -> None:
        row = RefundFactory.create(payment_id=payment, next_attempt_at=timezone.now())
        stripe.fail("slow_after", seconds=0.5)
        wait = in_thread(lambda: tasks.attempt(row.pk))
        wait_until(lambda: len(stripe.refunds) == 1, seconds=10, what="Stripe has executed")
        leases.mark_due(Refund.objects.all())
        wait()
        assert only().status == "completed"
        assert due() == [row.pk]

    def test_a_bug_is_tried_again_later_and_a_person_sees_it_in_the_end(
        self, stripe: Sandbox, payment: str, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def planted(*_: object) -> None:
            raise KeyError("oh")

        settings.RETRY_ATTEMPTS = 3
        monkeypatch.setattr(stripe_gateway, "send", planted)
        monkeypatch.setattr(stripe_gateway, "look", planted)
        RefundFactory.create(payment_id=payment, next_attempt_at=timezone.now())
        sweep_until_quiet()
        assert only().needs_review
        assert "given up after 4 attempts" in only().last_error
        assert "KeyError" in only().last_error

    def test_what_the_sdk_can_not_send_is_no_refusal(self, stripe: Sandbox) -> None:
        RefundFactory.create(request_payload="nonsense", next_attempt_at=timezone.now())
        tasks.attempt(only().pk)
        assert (only().status, only().needs_review) == ("in_progress", False)
        assert "AttributeError" in only().last_error


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


class TestDecisions:
    """What people may do, and what must not come of it."""

    @pytest.fixture
    def refused(self, stripe: Sandbox, payment: str) -> Refund:
        cancel("BK-1", payment, 151)
        return only()

    def test_trying_again_sends_the_same_key(self, stripe: Sandbox, refused: Refund) -> None:
        assert refused.try_again()
        sweep_until_quiet()
        assert only().status == "failed"
        assert len({one.key for one in stripe.requests if one.method == "POST"}) == 1

    def test_a_settled_refund_is_never_sent(self, stripe: Sandbox, refused: Refund) -> None:
        assert refused.settle(by="ann", why="paid in cash")
        sent = [one.method for one in stripe.requests].count("POST")
        leases.mark_due(Refund.objects.all())
        only().try_again()
        sweep_until_quiet()
        assert [one.method for one in stripe.requests].count("POST") == sent
        assert (only().needs_review, only().settlement) == (False, "paid in cash")

    def test_a_decision_on_what_changed_meanwhile_is_none(
        self, stripe: Sandbox, refused: Refund
    ) -> None:
        assert only().try_again()
        assert not refused.settle(by="ann", why="paid in cash")
        assert not refused.reissue()

    def test_a_decision_while_a_worker_asks_is_none(self, stripe: Sandbox, payment: str) -> None:
        row = RefundFactory.create(payment_id=payment, next_attempt_at=timezone.now())
        leases._take(Refund.objects.filter(pk=row.pk))
        assert not only().try_again()
        assert not only().settle(by="ann", why="x")
        assert not only().reissue()

    def test_a_new_key_is_for_what_was_refused_and_is_not_there(
        self, stripe: Sandbox, payment: str, refused: Refund
    ) -> None:
        assert attempts.obstacle_to_reissue(refused, timezone.now()) == ""
        assert refused.reissue()
        row = only()
        assert row.idempotency_key == idempotency_key("BK-1", issue=2)
        assert row.request_payload["metadata"]["idempotency_key"] == row.idempotency_key
        Refund.objects.update(
            amount_minor=6_000, request_payload=row.request_payload | {"amount": 6_000}
        )
        sweep_until_quiet()
        assert [refund["metadata"]["idempotency_key"] for refund in stripe.refunds] == [
            idempotency_key("BK-1", issue=2)
        ]
        assert only().status == "completed"

    def test_a_new_key_has_to_wait_while_the_old_one_may_still_act(
        self, stripe: Sandbox, payment: str
    ) -> None:
        stripe.fail("error_before")
        cancel("BK-1", payment, 60)
        sweep_until_quiet()
        now = timezone.now()
        assert "wait until" in attempts.obstacle_to_reissue(only(), now)
        assert attempts.obstacle_to_reissue(only(), now + timedelta(hours=25)) == ""

    def test_a_new_key_is_not_for_what_stripe_has_or_does_not_say(
        self, stripe: Sandbox, payment: str, refused: Refund
    ) -> None:
        now = timezone.now()
        stripe.fail("unavailable", method="GET")
        assert "is not known" in attempts.obstacle_to_reissue(refused, now)
        cancel("BK-2", payment, 10)
        assert attempts.obstacle_to_reissue(refused, now) == ""  # another booking's
        done = Refund.objects.get(booking_id="BK-2")
        assert "waits for a person" in attempts.obstacle_to_reissue(done, now)
        by_hand(stripe, payment)
        assert "Stripe lists a refund" in attempts.obstacle_to_reissue(refused, now)

    @pytest.mark.parametrize("given_up", [True, False])
    def test_what_was_refunded_by_hand_meanwhile_is_not_sent_again(
        self, stripe: Sandbox, payment: str, settings: Any, given_up: bool
    ) -> None:
        """150 euros are left to refund: Stripe would take the 60 as well."""
        settings.RETRY_ATTEMPTS = 1
        stripe.fail("drop_before")
        cancel("BK-1", payment, 60)
        if given_up:
            sweep_until_quiet()
        by_hand(stripe, payment)
        if given_up:
            assert only().try_again()
        else:
            settings.RETRY_ATTEMPTS = 150
        sweep_until_quiet()
        assert [refund["amount"] for refund in stripe.refunds] == [100]
        assert only().needs_review
        assert "refunded by hand" in only().last_error

    def test_what_was_refunded_by_hand_before_the_cancellation_is_no_obstacle(
        self, stripe: Sandbox, payment: str
    ) -> None:
        by_hand(stripe, payment)
        stripe.fail("drop_before")
        cancel("BK-1", payment, 60)
        later = timezone.now() + timedelta(hours=1)
        Refund.objects.update(created_at=later, first_sent_at=later)
        sweep_until_quiet()
        assert [refund["amount"] for refund in stripe.refunds] == [100, 6_000]

    def test_a_new_key_is_not_sent_if_somebody_was_quicker(
        self, stripe: Sandbox, payment: str, refused: Refund
    ) -> None:
        assert refused.reissue()
        by_hand(stripe, payment)
        Refund.objects.update(
            amount_minor=6_000, request_payload=only().request_payload | {"amount": 6_000}
        )
        sweep_until_quiet()
        assert [refund["amount"] for refund in stripe.refunds] == [100]
        assert "refunded by hand" in only().last_error

    def test_what_nobody_got_to_send_is_looked_for_first(
        self, stripe: Sandbox, payment: str
    ) -> None:
        """Its creator died before the call, and somebody helped out by hand."""
        row = RefundFactory.create(payment_id=payment, attempts=1, next_attempt_at=timezone.now())
        by_hand(stripe, payment)
        tasks.attempt(row.pk)
        assert [refund["amount"] for refund in stripe.refunds] == [100]
        assert only().needs_review

    def test_settling_keeps_a_webhooks_mark(self, stripe: Sandbox, refused: Refund) -> None:
        leases.mark_due(Refund.objects.all())
        assert refused.settle(by="ann", why="paid in cash")
        assert due() == [refused.pk]

    def test_one_attempt_is_one_that_sends(
        self, stripe: Sandbox, payment: str, settings: Any
    ) -> None:
        settings.RETRY_ATTEMPTS = 1
        cancel("BK-1", payment, 60)
        assert only().status == "completed"

    def test_an_answer_that_can_not_be_stored_waits_for_a_person(
        self, stripe: Sandbox, payment: str
    ) -> None:
        stripe.fail("drop_after")
        cancel("BK-1", payment, 60)
        RefundFactory.create(stripe_refund_id=stripe.refunds[0]["id"])
        sweep_until_quiet()
        row = Refund.objects.get(booking_id="BK-1")
        assert (row.status, row.needs_review, row.lease_until) == ("in_progress", True, None)
        assert "IntegrityError" in row.last_error

    def test_a_list_that_is_refused_proves_nothing(self, stripe: Sandbox, payment: str) -> None:
        stripe.fail("forbidden", method="GET")
        cancel("BK-1", payment, 151)
        assert (only().status, only().needs_review) == ("in_progress", False)

    def test_only_what_waits_for_a_person_can_be_settled(
        self, stripe: Sandbox, payment: str
    ) -> None:
        cancel("BK-1", payment, 60)
        assert not only().settle(by="ann", why="a slip")
        assert not only().settled

    def test_a_double_refund_that_a_person_settled_is_not_raised_again(
        self, stripe: Sandbox, payment: str
    ) -> None:
        cancel("BK-1", payment, 60)
        again = only().request_payload | {"amount": 6_000}
        stripe_gateway.send(again, "another key")
        for _ in range(2):
            leases.mark_due(Refund.objects.all())
            sweep_until_quiet()
            assert only().needs_review is not only().settled
            assert "2 refunds for this booking" in only().last_error
            only().settle(by="ann", why="the customer wired it back")


def by_hand(stripe: Sandbox, payment: str) -> None:
    """Refund as somebody does in Stripe's dashboard: without our metadata."""
    stripe_gateway.send({"payment_intent": payment, "amount": 100}, "by hand")


def due() -> list[int]:
    rows = leases.due(Refund.objects.all(), timezone.now())
    return list(rows.values_list("pk", flat=True))


def age(*, hours: int) -> None:
    past = timezone.now() - timedelta(hours=hours)
    Refund.objects.update(first_sent_at=past)


def in_thread(call: Callable[[], object]) -> Callable[[], None]:
    """Start a call in a thread with a connection of its own; give what waits for its end."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()

    def wait() -> None:
        thread.join(60)
        if errors:
            raise errors[0]

    return wait
