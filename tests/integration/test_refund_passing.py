"""What passes by itself: a lack of balance, a wrong key, refunds and payments that take their time."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from booking_platform.development.stripe_sandbox import Sandbox
from booking_platform.messaging import leases
from payments import stripe_gateway, tasks
from payments.keys import idempotency_key
from payments.models import Refund
from tests.factories import past
from tests.integration.refunds import by_hand, cancel, due, only, sweep_until_quiet

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]


def keys(stripe: Sandbox) -> list[str]:
    return [str(one.key) for one in stripe.requests if one.method == "POST"]


class TestBalance:
    @pytest.mark.parametrize("fault", ["balance_insufficient", "balance_insufficient_uncoded"])
    def test_a_lack_that_passes_delays_the_refund(
        self, stripe: Sandbox, payment: str, fault: str
    ) -> None:
        stripe.fail(fault, times=3)
        cancel("BK-1", payment, 60)
        row = only()
        assert (row.status, row.needs_review, row.first_sent_at) == ("in_progress", False, None)
        assert "Insufficient funds" in row.last_error
        sweep_until_quiet()
        assert [one["amount"] for one in stripe.refunds] == [6_000]
        first = idempotency_key("BK-1", payment)
        assert keys(stripe) == [first, f"{first}:2", f"{first}:3", f"{first}:4"]
        row = only()
        assert (row.status, row.needs_review) == ("completed", False)
        assert stripe.refunds[0]["metadata"]["idempotency_key"] == row.idempotency_key

    def test_a_lack_that_lasts_waits_for_a_person_who_tries_many(
        self, stripe: Sandbox, payment: str, settings: Any
    ) -> None:
        settings.RETRY_ATTEMPTS = 3
        stripe.set_balance("eur", 0)
        for number in range(2):
            cancel(f"BK-{number}", payment, 60)
        sweep_until_quiet()
        rows = Refund.objects.all()
        assert set(rows.values_list("status", "needs_review", "review_code")) == {
            ("failed", True, "no_balance")
        }
        assert len(keys(stripe)) == len(set(keys(stripe))) == 6
        stripe.set_balance("eur", None)
        for row in rows:
            assert row.try_again()
        sweep_until_quiet()
        assert [one["amount"] for one in stripe.refunds] == [6_000, 6_000]
        assert set(rows.values_list("status", "needs_review")) == {("completed", False)}

    def test_what_was_refunded_by_hand_meanwhile_is_seen(
        self, stripe: Sandbox, payment: str
    ) -> None:
        stripe.fail("balance_insufficient")
        cancel("BK-1", payment, 60)
        by_hand(stripe, payment)
        sweep_until_quiet()
        assert only().review_code == "by_hand"
        assert [one["amount"] for one in stripe.refunds] == [100]


class TestWrongKeys:
    def test_a_key_that_is_corrected_lets_all_go_out(
        self, stripe: Sandbox, payment: str, settings: Any
    ) -> None:
        right, settings.STRIPE_SECRET_KEY = settings.STRIPE_SECRET_KEY, "sk_live_of_another"
        cancel("BK-1", payment, 60)
        row = only()
        assert (row.status, row.needs_review, row.first_sent_at) == ("in_progress", False, None)
        assert "401" in row.last_error
        settings.STRIPE_SECRET_KEY = right
        sweep_until_quiet()
        assert only().status == "completed"
        assert len(stripe.refunds) == 1

    @pytest.mark.parametrize("fault", ["unauthorized", "forbidden", "rate_limited"])
    def test_what_was_not_executed_does_not_start_the_life_of_the_key(
        self, stripe: Sandbox, payment: str, fault: str
    ) -> None:
        """A restricted key may read payments, and not refund them."""
        stripe.fail(fault, times=0)
        cancel("BK-1", payment, 60)
        assert only().first_sent_at is None
        stripe.advance(30 * 3600)
        Refund.objects.update(created_at=timezone.now() - timedelta(hours=30))
        stripe.clear_faults()
        sweep_until_quiet()
        assert (only().status, only().needs_review) == ("completed", False)
        assert len(stripe.refunds) == 1

    def test_what_may_have_been_executed_does(self, stripe: Sandbox, payment: str) -> None:
        stripe.fail("unavailable")
        cancel("BK-1", payment, 60)
        sent = only().first_sent_at
        assert sent is not None
        stripe.fail("unauthorized")
        leases.mark_due(Refund.objects.all())
        tasks.attempt(only().pk)
        assert only().first_sent_at == sent

    def test_no_connection_does_not_start_the_life_of_the_key(
        self, stripe: Sandbox, payment: str, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        send = stripe_gateway.send

        def unplugged(*given: Any) -> Any:
            settings.STRIPE_API_BASE = "http://127.0.0.1:9"
            try:
                return send(*given)
            finally:
                settings.STRIPE_API_BASE = stripe.url

        monkeypatch.setattr(stripe_gateway, "send", unplugged)
        cancel("BK-1", payment, 60)
        assert only().first_sent_at is None
        assert only().request_payload != {}
        monkeypatch.undo()
        sweep_until_quiet()
        assert only().status == "completed"


class TestPending:
    @pytest.fixture
    def pending(self, stripe: Sandbox, payment: str, settings: Any) -> Refund:
        settings.RETRY_MAX_SECONDS = 1800.0
        stripe.change_payment(payment, refund_status="pending")
        cancel("BK-1", payment, 60)
        return only()

    def look(self) -> Refund:
        Refund.objects.update(next_attempt_at=past())
        tasks.attempt(only().pk)
        return only()

    def test_it_is_looked_at_again_until_it_is_not(self, stripe: Sandbox, pending: Refund) -> None:
        assert (pending.status, pending.stripe_status) == ("completed", "pending")
        assert pending.next_attempt_at is not None
        soon = pending.next_attempt_at - timezone.now()
        assert timedelta(minutes=29) < soon <= timedelta(minutes=30)
        assert due() == []
        row = self.look()
        assert (row.stripe_status, row.needs_review) == ("pending", False)
        assert row.next_attempt_at is not None
        stripe.change_refund(row.stripe_refund_id or "", status="succeeded")
        row = self.look()
        assert (row.stripe_status, row.needs_review, row.next_attempt_at) == (
            "succeeded",
            False,
            None,
        )
        assert len(stripe.refunds) == 1

    def test_one_that_fails_in_the_end_waits_for_a_person(
        self, stripe: Sandbox, pending: Refund
    ) -> None:
        stripe.change_refund(pending.stripe_refund_id or "", status="failed")
        row = self.look()
        assert (row.stripe_status, row.needs_review) == ("failed", True)
        assert row.next_attempt_at is None

    def test_a_webhook_does_not_wait_for_the_pause(self, stripe: Sandbox, pending: Refund) -> None:
        leases.mark_due(Refund.objects.all())
        assert due() == [pending.pk]


class TestPauses:
    def test_a_conclusion_may_name_its_pause(self, stripe: Sandbox, payment: str) -> None:
        cancel("BK-1", payment, 60)
        leases.mark_due(Refund.objects.all())
        day = timedelta(days=1)
        leases.take_up(Refund.objects.all(), lambda _: leases.Conclusion(again=True, pause=day))
        at = only().next_attempt_at
        assert at is not None
        assert day - timedelta(minutes=1) < at - timezone.now() <= day
