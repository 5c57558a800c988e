"""What staff let go out in the admin, in spite of what the look at a payment has found."""

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.utils import timezone

from booking_platform.development.stripe_sandbox import Sandbox
from payments import reviews, tasks
from payments.models import Refund
from payments.reviews import REVIEWS
from tests.factories import past
from tests.integration.admin_pages import (
    SOON,
    before,
    choose,
    columns_of,
    confirm,
    in_,
    kept,
    messages,
    page,
    staff,
    text,
)
from tests.integration.refund_rows import awaiting, completed, in_progress, settled

pytestmark = pytest.mark.django_db

APPROVABLE = [code for code, review in REVIEWS.items() if review.approvable]
ALONE = [code for code in APPROVABLE if not REVIEWS[code].at_once]
AT_ONCE = [code for code in APPROVABLE if REVIEWS[code].at_once]
NOT_APPROVABLE = [code for code, review in REVIEWS.items() if not review.approvable]


def approve(client: Client, *rows: Refund, why: str = "seen the bank's letter") -> Any:
    return confirm(client, choose(client, "approve", *rows), why=why)


class TestApprove:
    @pytest.mark.parametrize("code", APPROVABLE)
    def test_it_lets_a_refund_go_out_with_a_reason_that_is_kept(
        self, admin_client: Client, code: str
    ) -> None:
        row = awaiting(code, booking_id="BK-1", attempts=3)
        asked = choose(admin_client, "approve", row)
        for fact in ("Approve 1 refund", "BK-1", "whole booking", REVIEWS[code].meaning):
            assert fact in text(asked)
        assert not Refund.objects.exclude(approved_at=None).exists()
        response = confirm(admin_client, asked, why="called the customer")
        assert "1 refund approved, and taken up by the next sweep" in messages(response)
        row.refresh_from_db()
        assert (row.approved_by, row.approval) == ("admin", "called the customer")
        assert row.approved == {code}
        assert row.approved_at is not None
        assert (row.status, row.needs_review, row.review_code) == ("in_progress", False, "")
        assert row.next_attempt_at is not None
        assert row.next_attempt_at <= in_(minutes=1)
        told = f"approved in spite of this: {REVIEWS[code].meaning}. called the customer"
        assert kept(row) == [("admin", told)]
        assert told in text(admin_client.get(page(row, "history")))

    def test_it_needs_a_reason(self, admin_client: Client) -> None:
        row = awaiting(reviews.ABOVE_LIMIT)
        again = approve(admin_client, row, why="  ")
        assert "This field is required." in text(again)
        assert Refund.objects.get().needs_review
        confirm(admin_client, again, why="decided")
        assert not Refund.objects.get().needs_review

    def test_the_money_goes_out_once(
        self, admin_client: Client, stripe: Sandbox, settings: Any, payment: str
    ) -> None:
        settings.REFUND_REVIEW_ABOVE = {"eur": 1000}
        row = in_progress(payment_id=payment, next_attempt_at=past())
        tasks.attempt(row.pk)
        assert Refund.objects.get().review_code == reviews.ABOVE_LIMIT
        assert stripe.refunds == []
        approve(admin_client, Refund.objects.get())
        for _ in range(3):
            choose(admin_client, "try_now", row)
            tasks.attempt(row.pk)
        assert [refund["amount"] for refund in stripe.refunds] == [15_000]
        assert Refund.objects.get().status == "completed"

    def test_nothing_else_lets_it_go_out(
        self, admin_client: Client, stripe: Sandbox, settings: Any, payment: str
    ) -> None:
        settings.REFUND_REVIEW_ABOVE = {"eur": 1000}
        row = awaiting(reviews.ABOVE_LIMIT, payment_id=payment)
        choose(admin_client, "try_now", row)
        tasks.attempt(row.pk)
        asked = choose(admin_client, "reissue", row)
        confirm(admin_client, asked, looked="on", why="try it so")
        tasks.attempt(row.pk)
        row.refresh_from_db()
        assert (row.needs_review, row.review_code) == (True, reviews.ABOVE_LIMIT)
        assert stripe.refunds == []

    def test_what_else_stands_against_it_waits_for_a_person_again(
        self, admin_client: Client, stripe: Sandbox
    ) -> None:
        other = stripe.payment(amount=15_000, currency="eur", metadata={"booking_id": "BK-2"})
        row = awaiting(reviews.ABOVE_LIMIT, booking_id="BK-1", payment_id=other)
        approve(admin_client, row)
        tasks.attempt(row.pk)
        row.refresh_from_db()
        assert (row.needs_review, row.review_code) == (True, reviews.OTHER_BOOKING)
        assert stripe.refunds == []
        approve(admin_client, row, why="booked by the wife")
        tasks.attempt(row.pk)
        row.refresh_from_db()
        assert row.status == "completed"
        assert row.approved == {reviews.ABOVE_LIMIT, reviews.OTHER_BOOKING}
        assert len(stripe.refunds) == 1

    @pytest.mark.parametrize("code", [*NOT_APPROVABLE, "", "of_a_newer_version"])
    def test_what_no_person_can_waive_is_not_approved(
        self, admin_client: Client, code: str
    ) -> None:
        row = awaiting(code)
        was = columns_of(row)
        response = approve(admin_client, row)
        assert "not approved: what it waits for can't be approved" in messages(response)
        assert columns_of(row) == was
        assert not LogEntry.objects.exists()

    def test_it_is_only_for_what_waits(self, admin_client: Client) -> None:
        waiting = {"needs_review": True, "review_code": reviews.ABOVE_LIMIT}
        for row, problem in (
            (in_progress(), "it does not wait for a person"),
            (settled(**waiting), "a person has settled it"),
            (completed(**waiting), "Stripe has made it already"),
            (awaiting(reviews.ABOVE_LIMIT, lease_until=SOON), "a worker has it"),
        ):
            was = columns_of(row)
            assert f"not approved: {problem}" in messages(approve(admin_client, row))
            assert columns_of(row) == was

    def test_it_is_about_what_was_shown(self, admin_client: Client) -> None:
        """Another reason to wait is another question to the person."""
        row = awaiting(reviews.ABOVE_LIMIT)
        asked = choose(admin_client, "approve", row)
        Refund.objects.filter(pk=row.pk).update(
            review_code=reviews.BY_HAND, updated_at=timezone.now()
        )
        response = confirm(admin_client, asked, why="decided")
        assert "not approved: it changed since it was shown" in messages(response)

        def move() -> None:
            Refund.objects.filter(pk=row.pk).update(
                review_code=reviews.OTHER_BOOKING, updated_at=timezone.now()
            )

        with before("UPDATE", "idempotency_store", move):
            response = approve(admin_client, row)
        assert "not approved: it changed meanwhile" in messages(response)
        row.refresh_from_db()
        assert (row.needs_review, row.approved_at) == (True, None)
        assert not LogEntry.objects.exists()

    def test_one_who_may_do_all_else_may_not(self) -> None:
        row = awaiting(reviews.ABOVE_LIMIT)
        was = columns_of(row)
        others = ("retry_refund", "settle_refund", "reissue_refund", "request_refund")
        client = staff("view_refund", *others)
        assert 'value="approve"' not in text(client.get(page(row)))
        choose(client, "approve", row, confirmed="yes", why="forged")
        assert columns_of(row) == was


class TestManyAtOnce:
    def test_they_are_approved_with_one_reason_where_that_allows_it(
        self, admin_client: Client
    ) -> None:
        rows = [awaiting(code) for code in AT_ONCE for _ in range(2)]
        response = approve(admin_client, *rows, why="the summer's long trips")
        assert f"{len(rows)} refunds approved" in messages(response)
        assert set(Refund.objects.values_list("approval", flat=True)) == {"the summer's long trips"}
        assert LogEntry.objects.count() == len(rows)

    @pytest.mark.parametrize("code", ALONE)
    def test_the_others_are_approved_one_at_a_time(self, admin_client: Client, code: str) -> None:
        large = awaiting(reviews.ABOVE_LIMIT, booking_id="large")
        first, second = awaiting(code, booking_id="first"), awaiting(code, booking_id="second")
        told = messages(approve(admin_client, large, first, second))
        assert "1 refund approved, and taken up by the next sweep" in told
        for name in ("first", "second"):
            problem = f"it must be looked at and approved alone ({REVIEWS[code].meaning})"
            assert f"{name} (150.00 EUR): not approved: {problem}" in told
        assert [row.booking_id for row in Refund.objects.exclude(approved_at=None)] == ["large"]
        assert "1 refund approved" in messages(approve(admin_client, first))

    def test_one_that_is_left_of_many_is_not_alone(self, admin_client: Client) -> None:
        """Two were shown; the other has changed since."""
        first, second = awaiting(reviews.BY_HAND), awaiting(reviews.BY_HAND)
        asked = choose(admin_client, "approve", first, second)
        Refund.objects.filter(pk=second.pk).update(updated_at=timezone.now())
        told = messages(confirm(admin_client, asked, why="decided"))
        assert "it must be looked at and approved alone" in told
        assert not Refund.objects.exclude(approved_at=None).exists()
