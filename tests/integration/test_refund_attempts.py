"""Attempts at a refund: every fault of Stripe, and the leases of workers."""

from typing import Any

import pytest
from django.utils import timezone

from booking_platform.development.stripe_sandbox import Sandbox
from booking_platform.messaging import leases
from booking_platform.messaging.leases import LeaseLost
from payments import attempts, stripe_gateway, tasks
from payments.models import Refund
from tests.factories import RefundFactory, past
from tests.integration.refunds import (
    FAULTS,
    age,
    cancel,
    due,
    expire_lease,
    in_thread,
    only,
    sweep_until_quiet,
)
from tests.servers import wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]

LONG = 60  # seconds: a wait that no test sits out


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
        stripe.change_payment(payment, disputed=True)
        cancel("BK-1", payment, 60)
        row = only()
        assert (row.status, row.needs_review) == ("failed", True)
        assert "has been charged back" in row.last_error
        assert [one.method for one in stripe.requests] == ["GET", "POST", "GET"]

    def test_a_refusal_is_no_verdict_without_the_list(
        self, stripe: Sandbox, payment: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stripe.change_payment(payment, disputed=True)
        send = stripe_gateway.send

        def then_fail(*given: Any) -> Any:
            stripe.fail("unavailable", method="GET")
            return send(*given)

        monkeypatch.setattr(stripe_gateway, "send", then_fail)
        cancel("BK-1", payment, 60)
        assert (only().status, only().needs_review) == ("in_progress", False)
        monkeypatch.undo()
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
            next_attempt_at=past(),
        )
        sweep_until_quiet()
        assert only().needs_review
        assert "other parameters" in only().last_error
        assert stripe.refunds == []

    def test_a_dripping_answer_that_outlives_the_lease_refunds_once(
        self, stripe: Sandbox, payment: str
    ) -> None:
        stripe.fail("slow_before", seconds=LONG)
        done = in_thread(lambda: cancel("BK-1", payment, 60))
        wait_until(lambda: len(stripe.requests) == 2, what="the first call to refund")
        expire_lease()
        tasks.attempt(only().pk)  # while the first still waits: Stripe answers 409
        assert only().status == "in_progress"
        stripe.release()
        done()
        sweep_until_quiet()
        assert len(stripe.refunds) == 1
        assert only().status == "completed"


class TestLeases:
    @pytest.fixture
    def held(self, stripe: Sandbox, payment: str) -> Refund:
        """A refund whose holder froze, and whose lease has ended."""
        row = RefundFactory.create(payment_id=payment, next_attempt_at=past())
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
        RefundFactory.create(payment_id=payment, next_attempt_at=past())
        assert leases._take(rows) is not None
        leases.mark_due(rows)
        assert leases._take(rows) is None

    def test_what_is_marked_due_does_not_wait_for_the_pause_of_the_attempt_under_way(
        self, stripe: Sandbox, payment: str, settings: Any
    ) -> None:
        settings.RETRY_BASE_SECONDS = settings.RETRY_MAX_SECONDS = 10**6
        row = RefundFactory.create(payment_id=payment, next_attempt_at=past())

        def told_meanwhile(_row: Refund) -> leases.Conclusion:
            leases.mark_due(Refund.objects.all())
            return leases.Conclusion(again=True)

        leases.take_up(Refund.objects.all(), told_meanwhile)
        assert due() == [row.pk]

    def test_only_one_of_many_takes_a_refund(self, stripe: Sandbox, payment: str) -> None:
        row = RefundFactory.create(payment_id=payment, next_attempt_at=past())
        stripe.fail("slow_before", seconds=LONG)
        ended: list[int] = []

        def attempt() -> None:
            tasks.attempt(row.pk)
            ended.append(1)

        waits = [in_thread(attempt) for _ in range(8)]
        wait_until(lambda: len(ended) == 7, what="all others have left it to one")
        stripe.release()
        for wait in waits:
            wait()
        assert [one.method for one in stripe.requests] == ["GET", "POST"]
        assert only().attempts == 1

    def test_what_is_marked_due_during_an_attempt_is_taken_up_again(
        self, stripe: Sandbox, payment: str
    ) -> None:
        row = RefundFactory.create(payment_id=payment, next_attempt_at=past())
        stripe.fail("slow_after", seconds=LONG)
        wait = in_thread(lambda: tasks.attempt(row.pk))
        wait_until(lambda: len(stripe.refunds) == 1, what="Stripe has executed")
        leases.mark_due(Refund.objects.all())
        stripe.release()
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
        RefundFactory.create(payment_id=payment, next_attempt_at=past())
        sweep_until_quiet()
        assert only().needs_review
        assert "given up after 4 attempts" in only().last_error
        assert "KeyError" in only().last_error

    def test_what_the_sdk_can_not_send_is_no_refusal(self, stripe: Sandbox, payment: str) -> None:
        RefundFactory.create(
            payment_id=payment,
            request_payload="nonsense",
            first_sent_at=timezone.now(),
            next_attempt_at=past(),
        )
        tasks.attempt(only().pk)
        assert (only().status, only().needs_review) == ("in_progress", False)
        assert "AttributeError" in only().last_error
