"""What the business hears of refunds: each change of what it should know, once, in order."""

import json
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from django.db import DataError
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from booking_platform.development.stripe_sandbox import Sandbox
from booking_platform.messaging import inbox, leases
from booking_platform.messaging.leases import Conclusion, LeaseLost
from booking_platform.messaging.models import DeadLetter, OutboxRow, ProcessedEvent
from booking_platform.messaging.rules import CONSUMERS
from payments import announcing, attempts, reviews
from payments.models import NothingToRefund, Refund
from tests.announcements import Listener, announced, kinds, payloads, words
from tests.events import cancelled, deliveries
from tests.factories import RefundFactory, past
from tests.integration import comparing, refund_rows
from tests.integration.refunds import (
    FAULTS,
    QUEUE,
    by_hand,
    cancel,
    expire_lease,
    in_thread,
    only,
    sweep_until_quiet,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]

REQUESTED, COMPLETED, FAILED = "RefundRequested", "RefundCompleted", "RefundFailed"
REVIEW, SETTLED = "RefundNeedsReview", "RefundSettled"


def the_bank_says(stripe: Sandbox, status: str) -> None:
    """Change the only refund at Stripe, and look at it as after a webhook."""
    [refund] = stripe.refunds
    stripe.change_refund(refund["id"], status=status)
    leases.mark_due(Refund.objects.all())
    once()


def once() -> None:
    """Attempt what is due now, once."""
    comparing.sweep()


class TestWhatAnEventAsksFor:
    def test_a_refund_is_requested_and_completed(self, stripe: Sandbox, payment: str) -> None:
        cancel("BK-1", payment, 60, event_id="e-1", seatsRemaining=2, revision=7)
        requested, completed = payloads()
        common = {
            "bookingId": "BK-1", "paymentId": payment, "seatsRemaining": 2, "revision": 7,
            "amount": Decimal("60.00"), "causedBy": "e-1",
        }  # fmt: skip
        assert requested == common | {"status": "in_progress", "version": 1}
        [refund] = stripe.refunds
        there = {"status": "completed", "version": 2, "currency": "eur", "refundId": refund["id"]}
        assert completed == common | there
        assert kinds() == [REQUESTED, COMPLETED]

    def test_it_has_the_moment_at_which_it_became_true(self, stripe: Sandbox, payment: str) -> None:
        cancel("BK-1", payment, 60)
        _, completed = announced()
        assert datetime.fromisoformat(completed["timestamp"]) == only().updated_at
        assert only().announced == 2

    def test_an_event_that_comes_again_is_not_told_again(
        self, stripe: Sandbox, payment: str
    ) -> None:
        event = cancelled(1, "BK-1", 1, paymentId=payment, amount=60, seatsRemaining=0)
        for event_id in ("e-1", "e-1", "e-2"):
            inbox.process(CONSUMERS[QUEUE], deliveries(event | {"eventId": event_id}))
        assert kinds() == [REQUESTED, COMPLETED]

    def test_nothing_to_refund_is_not_told(self, stripe: Sandbox) -> None:
        cancel("BK-1", None, 0)
        assert NothingToRefund.objects.exists()
        assert announced() == []

    def test_each_payment_and_step_is_told_of(self, stripe: Sandbox) -> None:
        noted = {"booking_id": "BK-1"}
        first, second = (
            stripe.payment(amount=15_000, currency="eur", metadata=noted) for _ in range(2)
        )
        cancel("BK-1", first, 10, seatsRemaining=2)
        cancel("BK-1", first, 20, seatsRemaining=1)
        cancel("BK-1", second, 30, seatsRemaining=1)
        told = [(each["paymentId"], each["seatsRemaining"], each["version"]) for each in payloads()]
        assert told == [
            (payment, step, version)
            for payment, step in [(first, 2), (first, 1), (second, 1)]
            for version in (1, 2)
        ]

    def test_a_rollback_announces_nothing(
        self, stripe: Sandbox, payment: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(inbox, "record", _fails)
            cancel("BK-1", payment, 60)
        assert not Refund.objects.exists()
        assert kinds() == ["EventParked"]


def _fails(_consumer: object, outcomes: dict[str, str]) -> None:
    if outcomes:
        raise RuntimeError("just before the commit")


class TestTheAmount:
    @pytest.mark.parametrize(
        ("currency", "asked", "units", "told"),
        [
            ("eur", 60, 6_000, "60.00"),
            ("jpy", 1500, 1_500, "1500"),
            ("isk", 1500, 150_000, "1500"),
            ("kwd", "1.5", 1_500, "1.500"),
        ],
    )
    def test_it_has_exactly_the_digits_of_its_currency(
        self, stripe: Sandbox, currency: str, asked: Any, units: int, told: str
    ) -> None:
        amount = float(asked)
        cancel("BK-1", stripe.payment(amount=units, currency=currency), amount, currency=currency)
        [row] = OutboxRow.objects.order_by("pk")[:1]
        assert f'"amount":{told},"currency":"{currency}"' in row.messages
        assert [str(each["amount"]) for each in payloads()] == [told, told]

    def test_while_its_currency_is_not_known_it_is_as_the_event_says(self, stripe: Sandbox) -> None:
        cancel("BK-1", stripe.payment(amount=2_000, currency="jpy"), 1500)
        requested, completed = payloads()
        assert (str(requested["amount"]), requested.get("currency")) == ("1500.00", None)
        assert (str(completed["amount"]), completed.get("currency")) == ("1500", "jpy")

    def test_a_refund_of_the_version_before_has_one_too(
        self, stripe: Sandbox, payment: str
    ) -> None:
        RefundFactory.create(payment_id=payment, next_attempt_at=past())
        once()
        [completed] = payloads()
        assert (completed["amount"], completed["currency"]) == (Decimal("150.00"), "eur")
        assert (completed["version"], "causedBy" in completed) == (1, False)


class TestAttempts:
    @pytest.mark.parametrize("fault", [*FAULTS, "balance_insufficient"])
    def test_one_that_is_made_again_later_is_not_told(
        self, stripe: Sandbox, payment: str, fault: str
    ) -> None:
        stripe.fail(fault)
        cancel("BK-1", payment, 60)
        sweep_until_quiet()
        assert kinds() == (
            [REQUESTED, REVIEW] if fault == "error_before" else [REQUESTED, COMPLETED]
        )

    def test_another_look_is_not_told(self, stripe: Sandbox, payment: str) -> None:
        cancel("BK-1", payment, 60)
        for _ in range(3):
            leases.mark_due(Refund.objects.all())
            once()
        assert kinds() == [REQUESTED, COMPLETED]

    def test_that_a_pending_refund_has_arrived_is_not_told(
        self, stripe: Sandbox, payment: str
    ) -> None:
        stripe.change_payment(payment, refund_status="pending")
        cancel("BK-1", payment, 60)
        the_bank_says(stripe, "succeeded")
        assert only().stripe_status == "succeeded"
        assert kinds() == [REQUESTED, COMPLETED]

    @pytest.mark.parametrize(
        ("status", "kind", "reason"),
        [
            ("failed", FAILED, "sent_back"),
            ("canceled", FAILED, "taken_back"),
            ("requires_action", REVIEW, "requires_action"),
        ],
    )
    def test_what_the_bank_does_later_is_told(
        self, stripe: Sandbox, payment: str, status: str, kind: str, reason: str
    ) -> None:
        stripe.change_payment(payment, refund_status="pending")
        cancel("BK-1", payment, 60)
        the_bank_says(stripe, status)
        assert kinds() == [REQUESTED, COMPLETED, kind]
        [*_, last] = payloads()
        assert (last["reason"], last["status"], last["version"]) == (reason, "completed", 3)
        assert last["refundId"] == stripe.refunds[0]["id"]

    def test_a_refusal_is_told_without_stripes_words(self, stripe: Sandbox, payment: str) -> None:
        stripe.change_payment(payment, disputed=True)
        cancel("BK-1", payment, 60)
        assert kinds() == [REQUESTED, FAILED]
        [_, failed] = payloads()
        assert (failed["reason"], failed["status"]) == ("refused", "failed")
        assert only().last_error not in json.dumps(failed, default=str)

    def test_what_stands_against_it_is_told_by_its_code(self, stripe: Sandbox) -> None:
        noted = {"booking_id": "BK-2"}
        cancel("BK-1", stripe.payment(amount=15_000, currency="eur", metadata=noted), 60)
        cancel("BK-3", "pi_nowhere", 60)
        told = [
            (event["eventType"], event["payload"].get("reason"), event["payload"]["status"])
            for event in announced()
        ]
        assert told == [
            (REQUESTED, None, "in_progress"),
            (REVIEW, reviews.OTHER_BOOKING, "in_progress"),
            (REQUESTED, None, "in_progress"),
            (FAILED, reviews.NO_SUCH_PAYMENT, "failed"),
        ]

    def test_what_can_not_be_stored_is_told_as_unclear(
        self, stripe: Sandbox, payment: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        finish = leases._finish

        def rejected(row: Any, conclusion: Conclusion) -> None:
            if "response_payload" in conclusion.columns:
                raise DataError("not in this column")
            finish(row, conclusion)

        monkeypatch.setattr(leases, "_finish", rejected)
        cancel("BK-1", payment, 60)
        assert kinds() == [REQUESTED, REVIEW]
        assert payloads()[1]["reason"] == "unclear"

    def test_a_commit_of_which_no_answer_came_makes_the_same_event_again(
        self, stripe: Sandbox, payment: str
    ) -> None:
        cancel("BK-1", payment, 60)
        leases.mark_due(Refund.objects.all())
        row = leases._take(Refund.objects.all())
        assert row is not None
        conclusion = attempts.attempt(row)
        sent_back = Conclusion(conclusion.columns | {"stripe_status": "failed"})
        for _ in range(2):
            leases._finish(row, sent_back)
        assert kinds() == [REQUESTED, COMPLETED, FAILED]

    def test_whoever_was_overtaken_announces_nothing(self, stripe: Sandbox, payment: str) -> None:
        row = RefundFactory.create(payment_id=payment, next_attempt_at=past())
        late = leases._take(Refund.objects.filter(pk=row.pk))
        assert late is not None
        expire_lease()
        once()
        with pytest.raises(LeaseLost):
            leases._finish(late, Conclusion({"needs_review": True}))
        assert kinds() == [COMPLETED]

    def test_a_late_end_tells_what_it_changes_since(self, stripe: Sandbox, payment: str) -> None:
        """It was put up for a person after the lease had ended, which the late worker does not know."""
        cancel("BK-1", payment, 60)
        leases.mark_due(Refund.objects.all())
        late = leases._take(Refund.objects.all())
        assert late is not None
        conclusion = attempts.attempt(late)
        expire_lease()
        row = only()
        assert leases.store(
            leases.at_rest(Refund.objects.filter(pk=row.pk)), {"needs_review": True}
        )
        leases._finish(late, Conclusion(conclusion.columns | {"needs_review": False}))
        assert kinds() == [REQUESTED, COMPLETED, REVIEW, COMPLETED]


class TestDecisions:
    @pytest.fixture
    def refused(self, stripe: Sandbox, payment: str) -> Refund:
        stripe.change_payment(payment, disputed=True)
        cancel("BK-1", payment, 60)
        return only()

    def test_what_fails_again_is_a_fact_of_its_own(self, refused: Refund) -> None:
        assert refused.try_again()
        sweep_until_quiet()
        assert kinds() == [REQUESTED, FAILED, REQUESTED, FAILED]
        assert len({event["eventId"] for event in announced()}) == 4
        assert [each["version"] for each in payloads()] == [1, 2, 3, 4]

    def test_trying_what_is_under_way_is_not_told(self, stripe: Sandbox, payment: str) -> None:
        stripe.fail("unavailable", method="GET", times=0)
        cancel("BK-1", payment, 60)
        assert only().try_again()
        stripe.clear_faults()
        sweep_until_quiet()
        assert only().try_again()
        sweep_until_quiet()
        assert kinds() == [REQUESTED, COMPLETED]

    def test_a_new_key_is_told(self, stripe: Sandbox, payment: str, refused: Refund) -> None:
        assert attempts.obstacle_to_reissue(refused, timezone.now()) == ""
        assert refused.reissue()
        stripe.change_payment(payment, disputed=False)
        sweep_until_quiet()
        assert kinds() == [REQUESTED, FAILED, REQUESTED, COMPLETED]

    def test_an_approval_is_told_without_its_words(self, stripe: Sandbox) -> None:
        noted = {"booking_id": "BK-2"}
        cancel("BK-1", stripe.payment(amount=15_000, currency="eur", metadata=noted), 60)
        assert only().approve(by="ada", why="her sister's booking")
        sweep_until_quiet()
        assert kinds() == [REQUESTED, REVIEW, REQUESTED, COMPLETED]
        assert_nothing_private()

    def test_a_settlement_is_told_without_its_words(self, refused: Refund) -> None:
        assert refused.settle(by="ada", why="paid in cash to her sister")
        assert kinds() == [REQUESTED, FAILED, SETTLED]
        [*_, settled] = payloads()
        assert (settled["status"], settled["version"]) == ("failed", 3)
        assert "reason" not in settled
        assert_nothing_private()

    def test_what_moves_after_a_settlement_is_told(self, stripe: Sandbox, payment: str) -> None:
        stripe.change_payment(payment, refund_status="pending")
        cancel("BK-1", payment, 60)
        the_bank_says(stripe, "requires_action")
        assert only().settle(by="ada", why="she knows")
        the_bank_says(stripe, "succeeded")
        assert only().settle(by="ada", why="she has it")
        assert kinds() == [REQUESTED, COMPLETED, REVIEW, SETTLED, REVIEW, SETTLED]
        assert payloads()[4]["reason"] == "mismatch"

    def test_one_that_came_too_late_announces_nothing(self, refused: Refund) -> None:
        assert only().try_again()
        before = kinds()
        assert not refused.settle(by="ada", why="paid in cash")
        assert not refused.reissue()
        assert kinds() == before

    def test_of_two_at_once_one_is_told(self, refused: Refund) -> None:
        colleague = only()
        done: list[bool] = []
        waits = [
            in_thread(lambda row=row: done.append(row.settle(by="ada", why="paid")))  # type: ignore[misc]
            for row in (refused, colleague)
        ]
        for wait in waits:
            wait()
        assert sorted(done) == [False, True]
        assert kinds() == [REQUESTED, FAILED, SETTLED]


class TestReconciliation:
    def test_what_it_puts_up_for_a_person_is_told_once(self, stripe: Sandbox, payment: str) -> None:
        cancel("BK-1", payment, 60)
        by_hand(stripe, payment)
        for _ in range(2):
            assert comparing.run()[0] == 1
        assert only().needs_review
        assert kinds() == [REQUESTED, COMPLETED, REVIEW]
        [*_, last] = payloads()
        assert (last["reason"], last["status"]) == ("mismatch", "completed")
        assert_nothing_private()

    def test_what_it_finds_is_told_as_the_attempt_finds_it(
        self, stripe: Sandbox, payment: str
    ) -> None:
        cancel("BK-1", payment, 60)
        stripe.change_refund(stripe.refunds[0]["id"], status="failed")
        assert comparing.run()[0] == 1
        assert kinds() == [REQUESTED, COMPLETED]
        once()
        assert kinds() == [REQUESTED, COMPLETED, FAILED]


class TestReasons:
    def test_each_review_code_is_one(self) -> None:
        assert reviews.REVIEWS.keys() <= announcing.REASONS.keys()
        assert all(len(code) <= 30 for code in announcing.REASONS)

    @pytest.mark.parametrize("row", [refund_rows.refused, refund_rows.awaiting])
    def test_it_is_told_for_rows_of_before(self, row: Callable[..., Refund]) -> None:
        code = {"review_code": "by_hand"} if row is refund_rows.awaiting else {}
        assert row(**code).settle(by="ada", why="x")
        assert kinds() == [SETTLED]


PRIVATE = ("sister", "ada", "cash", "Stripe", "reconciliation", "not sent")


def assert_nothing_private() -> None:
    """Check that nobody is named, and that no words of staff or of Stripe are told."""
    assert not [word for word in PRIVATE if word in words()]


Act = Callable[["World"], object]


class World:
    """Bookings, an account at Stripe, workers and staff, each of whom may do anything at any time."""

    def __init__(self, stripe: Sandbox) -> None:
        self.stripe = stripe
        self.payments = [
            stripe.payment(amount=9_000, currency=currency, metadata=metadata)
            for currency, metadata in [("eur", {"booking_id": "BK-0"}), ("eur", {}), ("jpy", {})]
        ]
        self.late: list[tuple[Refund, Conclusion]] = []
        self.events = 0

    def cancel(self, booking: int, payment: int, step: int) -> None:
        self.events += 1
        cancel(
            f"BK-{booking}", self.payments[payment], 30,
            seatsRemaining=step, event_id=f"e-{self.events}",
        )  # fmt: skip

    def decide(self, number: int, how: str) -> None:
        for row in Refund.objects.order_by("pk")[number : number + 1]:
            if how == "reissue":
                may = not attempts.obstacle_to_reissue(row, timezone.now())
                assert not may or row.reissue() or row.lease_until
            elif how == "try_again":
                row.try_again()
            else:
                getattr(row, how)(by="ada", why="because of her sister")

    def bank(self, number: int, status: str) -> None:
        for refund in self.stripe.refunds[number : number + 1]:
            self.stripe.change_refund(refund["id"], status=status)
        leases.mark_due(Refund.objects.all())

    def hand(self, payment: int) -> None:
        by_hand(self.stripe, self.payments[payment], f"by hand {self.events}")

    def hang(self, number: int) -> None:
        """Have a worker stop just before it stores what came of an attempt; its lease ends."""
        for row in Refund.objects.order_by("pk")[number : number + 1]:
            leases.mark_due(Refund.objects.filter(pk=row.pk))
            taken = leases._take(Refund.objects.filter(pk=row.pk))
            if taken is not None:
                self.late.append((taken, attempts.attempt(taken)))
        expire_lease()

    def wake(self) -> None:
        """Let the workers go on that were stopped."""
        for row, conclusion in self.late:
            try:
                leases._finish(row, conclusion)
            except LeaseLost:
                continue
        self.late = []


def act(name: str, *given: Any) -> Any:
    """Return a strategy for one thing that may happen."""
    chosen = st.tuples(*(st.sampled_from(list(values)) for values in given))
    return chosen.map(lambda values: (name, *values))


ROWS = range(4)
ACTS = st.one_of(
    act("cancel", range(3), range(3), (0, 1)),
    act("decide", ROWS, ("try_again", "approve", "settle", "reissue")),
    act("bank", ROWS, ("pending", "succeeded", "failed", "canceled", "requires_action")),
    act("hand", range(3)),
    act("hang", ROWS),
    act("wake"),
    act("fail", (*FAULTS, "balance_insufficient"), ("GET", "POST")),
    act("dispute", range(3), (True, False)),
    act("sweep"),
    act("reconcile"),
)


class TestAgainstTheTable:
    @hypothesis_settings(
        max_examples=80,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(acts=st.lists(ACTS, min_size=1, max_size=14), again=st.randoms(use_true_random=False))
    def test_a_listener_knows_each_refund_as_the_table_has_it(
        self, stripe: Sandbox, acts: list[tuple[Any, ...]], again: Any
    ) -> None:
        for model in (Refund, NothingToRefund, ProcessedEvent, DeadLetter, OutboxRow):
            model.objects.all().delete()
        stripe.reset()
        world, heard = World(stripe), Listener("bookingId", "paymentId", "seatsRemaining")
        others: dict[str, Callable[..., object]] = {
            "fail": lambda fault, method: stripe.fail(fault, method=method),
            "dispute": lambda number, disputed: stripe.change_payment(
                world.payments[number], disputed=disputed
            ),
            "sweep": once,
            "reconcile": comparing.run,
        }
        for name, *given_to in acts:
            (others.get(name) or getattr(world, name))(*given_to)
            events = [event for event in announced() if event["eventType"].startswith("Refund")]
            published = events + events[again.randint(0, len(events)) :]  # a relay died
            for event in published:
                heard.hear(event)
            assert {key: told(event) for key, event in heard.last.items()} == {
                (row.booking_id, row.payment_id, row.seats_remaining): stored(row)
                for row in Refund.objects.all()
            }
        assert_nothing_private()


def told(event: dict[str, Any]) -> tuple[Any, ...]:
    """Return what a listener knows of a refund from the last event about it."""
    kind, payload = event["eventType"], event["payload"]
    return (
        payload["status"],
        kind in (FAILED, REVIEW),
        kind == SETTLED,
        payload.get("refundId"),
        payload["amount"],
        payload.get("currency") if payload["status"] == "completed" else None,
        payload["version"],
    )


def stored(row: Refund) -> tuple[Any, ...]:
    """Return the same of the table."""
    minor = Decimal(1) if row.currency == "jpy" else Decimal(100)
    return (
        row.status,
        row.needs_review,
        row.settled and not row.needs_review,
        row.stripe_refund_id,
        row.asked if row.amount_minor is None else row.amount_minor / minor,
        row.currency if row.status == "completed" else None,
        row.announced,
    )
