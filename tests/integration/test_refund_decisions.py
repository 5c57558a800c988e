"""What people decide about refunds, and what must not come of it."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from booking_platform.development.stripe_sandbox import Sandbox
from booking_platform.messaging import leases
from payments import attempts, stripe_gateway, tasks
from payments.keys import idempotency_key
from payments.models import Refund
from tests.factories import RefundFactory, past
from tests.integration.refunds import by_hand, cancel, due, only, sweep_until_quiet

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]


class TestDecisions:
    @pytest.fixture
    def refused(self, stripe: Sandbox, payment: str) -> Refund:
        stripe.change_payment(payment, disputed=True)
        cancel("BK-1", payment, 60)
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
        row = RefundFactory.create(payment_id=payment, next_attempt_at=past())
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
        assert row.idempotency_key == f"{idempotency_key('BK-1', payment)}:2"
        stripe.change_payment(payment, disputed=False)
        sweep_until_quiet()
        assert [refund["metadata"]["idempotency_key"] for refund in stripe.refunds] == [
            row.idempotency_key
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
        stripe.change_payment(payment, disputed=False)
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
        later = timezone.now() + timedelta(hours=1)
        stripe.fail("drop_before")
        row = RefundFactory.create(
            payment_id=payment,
            amount_minor=6_000,
            created_at=later,
            cancelled_at=later,
            next_attempt_at=past(),
        )
        sweep_until_quiet()
        row.refresh_from_db()
        assert row.status == "completed"
        assert [refund["amount"] for refund in stripe.refunds] == [100, 6_000]

    def test_a_new_key_is_not_sent_if_somebody_was_quicker(
        self, stripe: Sandbox, payment: str, refused: Refund
    ) -> None:
        assert refused.reissue()
        stripe.change_payment(payment, disputed=False)
        by_hand(stripe, payment)
        sweep_until_quiet()
        assert [refund["amount"] for refund in stripe.refunds] == [100]
        assert "refunded by hand" in only().last_error

    def test_what_nobody_got_to_send_is_looked_for_first(
        self, stripe: Sandbox, payment: str
    ) -> None:
        """Its creator died before the call, and somebody helped out by hand."""
        row = RefundFactory.create(payment_id=payment, attempts=1, next_attempt_at=past())
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

    def test_a_look_that_is_refused_proves_nothing(self, stripe: Sandbox, payment: str) -> None:
        stripe.fail("forbidden", method="GET")
        cancel("BK-1", payment, 60)
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
