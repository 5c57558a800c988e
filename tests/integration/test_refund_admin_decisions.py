"""What staff decide about refunds in the admin, on a Stripe of our own."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.utils import timezone

from booking_platform.development.stripe_sandbox import Sandbox
from booking_platform.operations import decisions
from booking_platform.operations.leased import as_seen
from payments import reviews, stripe_gateway, tasks
from payments.keys import next_issue
from payments.models import Refund
from tests.integration.admin_pages import (
    PAST,
    SOON,
    before,
    choose,
    columns_of,
    confirm,
    fields,
    in_,
    kept,
    listed,
    listing,
    messages,
    page,
    staff,
    text,
)
from tests.integration.refund_rows import completed, in_progress, refused

pytestmark = pytest.mark.django_db


class TestTryNow:
    def test_it_makes_it_due_under_the_same_key(self, admin_client: Client) -> None:
        row = refused(attempts=9)
        response = choose(admin_client, "try_now", row)
        assert "1 refund taken up by the next sweep, within 60 seconds" in messages(response)
        was, row = row, Refund.objects.get()
        assert row.idempotency_key == was.idempotency_key
        assert (row.status, row.needs_review, row.attempts) == ("in_progress", False, 0)
        assert row.next_attempt_at is not None
        assert row.next_attempt_at <= in_(minutes=1)
        [(who, what)] = kept(row)
        assert who == "admin"
        assert "under the same key" in what

    def test_it_refunds_once_though_pressed_again_and_again(
        self, admin_client: Client, stripe: Sandbox, payment: str
    ) -> None:
        row = in_progress(payment_id=payment)
        stripe.fail("drop_after")
        for _ in range(4):
            choose(admin_client, "try_now", row)
            choose(admin_client, "try_now", row)
            tasks.attempt(row.pk)
        assert len(stripe.refunds) == 1
        assert Refund.objects.get().status == "completed"

    def test_it_tells_which_a_worker_has_and_which_changed_meanwhile(
        self, admin_client: Client
    ) -> None:
        held, moved = refused(booking_id="held", lease_until=SOON), refused(booking_id="moved")
        was = columns_of(held)

        def move() -> None:
            Refund.objects.filter(pk=moved.pk).update(updated_at=timezone.now())

        response = choose(admin_client, "try_now", held)
        assert f"a worker has it, under way until {SOON:%H:%M:%S} UTC" in messages(response)
        assert columns_of(held) == was
        with before("UPDATE", "idempotency_store", move):
            response = choose(admin_client, "try_now", moved)
        assert "moved (150.00 EUR): not tried anew: it changed meanwhile" in messages(response)
        moved.refresh_from_db()
        assert moved.next_attempt_at is None
        assert not LogEntry.objects.exists()

    def test_it_takes_so_many_at_once(
        self, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(decisions, "MOST_AT_ONCE", 2)
        first, second, third = (refused(created_at=in_(days=-9 + n)) for n in range(3))
        url = f"{listing(Refund)}?person=awaited"
        chosen = {"action": "try_now", "_selected_action": third.pk, "select_across": "1"}
        response = admin_client.post(url, chosen, follow=True)
        assert "2 refunds taken up" in messages(response)
        assert "Only the 2 oldest: do it again for the other 1." in messages(response)
        assert {row.pk for row in listed(admin_client, Refund, due="now")} == {
            first.pk,
            second.pk,
        }


class TestMarkSettled:
    def test_it_closes_with_a_reason_once_confirmed(self, admin_client: Client) -> None:
        row = refused()
        asked = choose(admin_client, "settle", row)
        assert "Mark 1 refund settled" in text(asked)
        assert "Insufficient funds" in text(asked)
        assert not Refund.objects.get().settled
        response = confirm(admin_client, asked, why="paid by bank transfer")
        assert "1 refund marked settled: " in messages(response)
        row.refresh_from_db()
        assert (row.needs_review, row.settled_by, row.settlement) == (
            False,
            "admin",
            "paid by bank transfer",
        )
        assert row.settled
        assert kept(row) == [("admin", "marked settled: paid by bank transfer")]
        assert "marked settled: paid" in text(admin_client.get(page(row, "history")))

    def test_it_needs_a_reason(self, admin_client: Client) -> None:
        row = refused()
        again = confirm(admin_client, choose(admin_client, "settle", row), why="  ")
        assert "This field is required." in text(again)
        assert not Refund.objects.get().settled
        confirm(admin_client, again, why="decided")
        assert Refund.objects.get().settled

    def test_it_tells_which_were_not_settled_and_why(self, admin_client: Client) -> None:
        good, fine = refused(booking_id="good"), completed(booking_id="fine")
        held, news = refused(booking_id="held"), refused(booking_id="news")
        asked = choose(admin_client, "settle", good, fine, held, news)
        assert "Mark 4 refunds settled" in text(asked)
        Refund.objects.filter(pk=held.pk).update(lease_until=SOON)
        Refund.objects.filter(pk=news.pk).update(
            last_error="Stripe has 2 refunds", updated_at=timezone.now()
        )
        told = messages(confirm(admin_client, asked, why="decided"))
        assert "1 refund marked settled: good (150.00 EUR)" in told
        assert "fine (150.00 EUR): not marked settled: it does not wait for a person" in told
        assert "held (150.00 EUR): not marked settled: a worker has it" in told
        assert "news (150.00 EUR): not marked settled: it changed since it was shown" in told
        assert [row.booking_id for row in Refund.objects.exclude(settled_at=None)] == ["good"]
        assert LogEntry.objects.count() == 1

    def test_one_that_a_colleague_has_settled_meanwhile_waits_no_more(
        self, admin_client: Client
    ) -> None:
        row = refused(booking_id="BK-1")
        asked = choose(admin_client, "settle", row)
        assert Refund.objects.get().settle(by="ada", why="paid by bank transfer")
        told = messages(confirm(admin_client, asked, why="decided"))
        assert "not marked settled: it does not wait for a person" in told
        assert Refund.objects.get().settled_by == "ada"

    def test_it_does_not_overwrite_what_comes_meanwhile(self, admin_client: Client) -> None:
        row = refused()
        asked = choose(admin_client, "settle", row)

        def complete() -> None:
            Refund.objects.filter(pk=row.pk).update(
                status="completed", stripe_refund_id="re_1", updated_at=timezone.now()
            )

        with before("UPDATE", "idempotency_store", complete):
            response = confirm(admin_client, asked, why="decided")
        assert "it changed meanwhile" in messages(response)
        assert not Refund.objects.get().settled
        assert not LogEntry.objects.exists()

    def test_it_lists_so_many_of_many(
        self, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(decisions, "LISTED", 2)
        rows = [refused() for _ in range(3)]
        asked = choose(admin_client, "settle", *rows)
        assert "… and 1 more." in text(asked)
        assert "3 refunds marked settled" in messages(confirm(admin_client, asked, why="all"))


LOOKED = {"looked": "on", "why": "Stripe refused; the account has funds now"}


class TestReissue:
    @pytest.fixture
    def row(self, payment: str) -> Refund:
        return refused(booking_id="BK-1", payment_id=payment)

    def test_it_sends_one_refund_under_a_new_key(
        self, admin_client: Client, stripe: Sandbox, row: Refund
    ) -> None:
        asked = choose(admin_client, "reissue", row)
        for fact in ("BK-1", "150.00 EUR", row.payment_id, row.idempotency_key):
            assert fact in text(asked)
        assert "it lists no refund of this payment" in text(asked)
        response = confirm(admin_client, asked, **LOOKED)
        assert "1 refund re-issued under a new key: BK-1 (150.00 EUR)" in messages(response)
        old_key = row.idempotency_key
        row.refresh_from_db()
        assert row.idempotency_key == next_issue(old_key)
        [(who, what)] = kept(row)
        assert who == "admin"
        assert LOOKED["why"] in what
        assert old_key in what
        assert stripe.refunds == []
        for _ in range(3):
            choose(admin_client, "try_now", row)
            tasks.attempt(row.pk)
        [refund] = stripe.refunds
        assert refund["metadata"]["idempotency_key"] == row.idempotency_key
        assert Refund.objects.get().status == "completed"

    def test_it_asks_stripe_before_each_step_and_outside_any_transaction(
        self, admin_client: Client, stripe: Sandbox, row: Refund
    ) -> None:
        asked = choose(admin_client, "reissue", row)
        assert len(stripe.requests) == 1
        confirm(admin_client, asked, **LOOKED)
        assert [request.method for request in stripe.requests] == ["GET", "GET"]

    @pytest.mark.django_db(transaction=True)
    def test_no_transaction_is_open_before_the_decision_is_stored(
        self, admin_client: Client, row: Refund
    ) -> None:
        asked = choose(admin_client, "reissue", row)
        with statements_in_transactions("idempotency_store") as within:
            confirm(admin_client, asked, **LOOKED)
        key = next_issue(row.idempotency_key)
        row.refresh_from_db()
        assert row.idempotency_key == key
        begun = within.index(True)
        assert begun >= 1
        assert within[begun : begun + 2] == [True, True]  # read under a lock, and changed
        assert not any(within[begun + 2 :])

    @pytest.mark.parametrize("missing", ["looked", "why"])
    def test_it_needs_a_look_and_a_reason(
        self, admin_client: Client, row: Refund, missing: str
    ) -> None:
        was = columns_of(row)
        answers = {name: value for name, value in LOOKED.items() if name != missing}
        again = confirm(admin_client, choose(admin_client, "reissue", row), **answers)
        assert "This field is required." in text(again)
        assert columns_of(row) == was
        confirm(admin_client, again, **LOOKED)
        assert columns_of(row) != was

    def test_it_is_not_offered_where_stripe_lists_a_refund(
        self, admin_client: Client, stripe: Sandbox, row: Refund
    ) -> None:
        self.refund_by_hand(row)
        [refund] = stripe.refunds
        shown = text(choose(admin_client, "reissue", row))
        assert f"It can't be re-issued ({timezone.now():%H:}" in shown
        assert f"Stripe lists a refund of this payment: {refund['id']}, 150.00 EUR" in shown
        assert 'name="why"' not in shown
        assert 'value="Re-issue' not in shown

    def test_it_stops_where_a_refund_comes_while_a_person_thinks(
        self, admin_client: Client, row: Refund
    ) -> None:
        asked = choose(admin_client, "reissue", row)
        self.refund_by_hand(row)
        was = columns_of(row)
        assert "Stripe lists a refund" in text(confirm(admin_client, asked, **LOOKED))
        assert columns_of(row) == was
        assert not LogEntry.objects.exists()

    def test_it_stops_where_stripe_does_not_answer(
        self, admin_client: Client, stripe: Sandbox, row: Refund
    ) -> None:
        asked = choose(admin_client, "reissue", row)
        stripe.fail("unavailable", times=0, method="GET")
        was = columns_of(row)
        assert "what Stripe has is not known" in text(confirm(admin_client, asked, **LOOKED))
        assert columns_of(row) == was

    def test_it_waits_until_stripe_has_forgotten_the_old_key(
        self, admin_client: Client, stripe: Sandbox, row: Refund
    ) -> None:
        Refund.objects.update(status="in_progress")
        assert "Stripe may still act on the key" in text(choose(admin_client, "reissue", row))
        Refund.objects.update(first_sent_at=in_(days=-2))
        assert 'name="looked"' in text(choose(admin_client, "reissue", row))

    @pytest.mark.parametrize(
        "columns",
        [
            {"needs_review": False},
            {"settled_at": PAST},
            {"status": "completed", "stripe_refund_id": "re_1"},
        ],
    )
    def test_it_is_only_for_what_waits_and_stripe_does_not_have(
        self, admin_client: Client, row: Refund, columns: dict[str, Any]
    ) -> None:
        Refund.objects.update(**columns)
        was = columns_of(row)
        shown = choose(admin_client, "reissue", row)
        assert "only a refund that waits for a person" in text(shown)
        choose(admin_client, "reissue", row, confirmed="yes", **LOOKED)
        assert columns_of(row) == was

    def test_it_takes_one_at_a_time(
        self, admin_client: Client, stripe: Sandbox, row: Refund
    ) -> None:
        other = refused()
        for response in (
            choose(admin_client, "reissue", row, other),
            choose(admin_client, "reissue", row, select_across="1", index="0"),
            choose(admin_client, "reissue", row, other, confirmed="yes", **LOOKED),
        ):
            assert "Refunds are re-issued one at a time" in messages(response)
        assert stripe.requests == []
        assert not LogEntry.objects.exists()

    def test_it_is_about_what_was_shown(
        self, admin_client: Client, stripe: Sandbox, row: Refund
    ) -> None:
        """Sent twice, or after a colleague did the same: the second is refused."""
        asked = choose(admin_client, "reissue", row)
        confirm(admin_client, asked, **LOOKED)
        stripe.change_payment(row.payment_id, disputed=True)
        tasks.attempt(row.pk)  # refused again, so that it waits for a person again
        again = columns_of(row)
        assert again["needs_review"]
        assert "it changed since it was shown" in text(confirm(admin_client, asked, **LOOKED))
        assert columns_of(row) == again
        assert LogEntry.objects.count() == 1

    def test_it_does_not_overwrite_what_comes_while_stripe_is_asked(
        self, admin_client: Client, row: Refund
    ) -> None:
        asked = choose(admin_client, "reissue", row)

        def take() -> None:
            Refund.objects.filter(pk=row.pk).update(lease_until=SOON)

        with before("UPDATE", "idempotency_store", take):
            response = confirm(admin_client, asked, **LOOKED)
        assert "BK-1 (150.00 EUR): not re-issued: a worker has it" in messages(response)
        assert columns_of(row)["idempotency_key"] == row.idempotency_key
        assert not LogEntry.objects.exists()

    @staticmethod
    def refund_by_hand(row: Refund) -> None:
        request = {"payment_intent": row.payment_id, "amount": row.amount_minor}
        stripe_gateway.send(request, "by-hand")


@contextmanager
def statements_in_transactions(table: str) -> Iterator[list[bool]]:
    """Record of each statement about a table whether a transaction was open."""
    within: list[bool] = []

    def record(execute: Callable[..., Any], sql: str, *given: Any) -> Any:
        if f'"{table}"' in sql:
            within.append(connection.in_atomic_block)
        return execute(sql, *given)

    with connection.execute_wrapper(record):
        yield within


ACTIONS = {"approve": "approve", "try_now": "retry", "settle": "settle", "reissue": "reissue"}


class TestPermissions:
    @pytest.fixture
    def row(self, payment: str) -> Refund:
        return refused(payment_id=payment, review_code=reviews.ABOVE_LIMIT)

    def post_all(self, client: Client, row: Refund, *actions: str) -> None:
        seen = as_seen(Refund.objects.get())
        for action in actions:
            choose(client, action, row, confirmed="yes", seen=seen, **LOOKED)

    def test_nobody_without_one_sees_any(self, row: Refund) -> None:
        assert staff("view_tour").get(listing(Refund)).status_code == 403

    def test_it_takes_more_than_seeing_to_decide(self, row: Refund) -> None:
        client, was = staff("view_refund"), columns_of(row)
        for url in (listing(Refund), page(row)):
            assert 'name="action"' not in text(client.get(url))
        self.post_all(client, row, *ACTIONS)
        assert columns_of(row) == was
        assert not LogEntry.objects.exists()

    @pytest.mark.parametrize("may", ACTIONS)
    def test_each_decision_has_its_own(self, row: Refund, may: str) -> None:
        client, was = staff("view_refund", f"{ACTIONS[may]}_refund"), columns_of(row)
        for url, pattern in (
            (page(row), r'name="action" value="(\w+)"'),
            (listing(Refund), r'<option value="(\w+)"'),
        ):
            assert re.findall(pattern, text(client.get(url))) == [may]
        self.post_all(client, row, *(set(ACTIONS) - {may}))
        assert columns_of(row) == was
        self.post_all(client, row, may)
        assert columns_of(row) != was
        assert len(kept(row)) == 1

    def test_a_get_changes_nothing(self, admin_client: Client, row: Refund) -> None:
        was = columns_of(row)
        for action in ACTIONS:
            query: dict[str, Any] = {
                "action": action,
                "_selected_action": row.pk,
                "confirmed": "1",
                **LOOKED,
            }
            admin_client.get(listing(Refund), query)
        assert columns_of(row) == was

    def test_the_forms_work_in_a_browser_and_not_from_a_strangers_page(self, row: Refund) -> None:
        client, was = Client(enforce_csrf_checks=True), columns_of(row)
        client.force_login(User.objects.create_superuser("admin"))
        for action in ACTIONS:
            assert choose(client, action, row, confirmed="yes", **LOOKED).status_code == 403
        assert columns_of(row) == was
        buttons = fields(text(client.get(page(row))), 'class="resolutions ')
        asked = client.post(listing(Refund), buttons | {"action": "settle"})
        confirm(client, asked, why="a person decided")
        assert Refund.objects.get().settlement == "a person decided"
