"""The admin of refunds as operations staff use it, on a Stripe of our own."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from booking_platform.development.stripe_sandbox import Sandbox
from booking_platform.messaging.models import ProcessedEvent
from booking_platform.operations import decisions
from booking_platform.operations.leased import as_seen
from catalog.models import Reservation
from payments import admin as refund_admin
from payments import stripe_gateway, tasks
from payments.models import Refund, idempotency_key
from payments.rules import Outcome
from tests import events
from tests.factories import RefundFactory, TourFactory
from tests.integration.test_admin import (
    CREATED,
    before,
    fields,
    listed,
    listing,
    messages,
    page,
    settle,
    staff,
    text,
)

EVIL = "\"'><script>alert(1)</script>&%2F..#?"
TURNED = "txt\u202eexe\x1b[2J"

pytestmark = pytest.mark.django_db


@pytest.fixture
def admin_client(db: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("admin"))
    return client


@pytest.fixture
def payment(stripe: Sandbox) -> str:
    return stripe.payment(amount=15_000, currency="eur")


def in_(**time: float) -> Any:
    return timezone.now() + timedelta(**time)


def in_progress(**columns: Any) -> Refund:
    return RefundFactory.create(**columns)


def completed(**columns: Any) -> Refund:
    booking = columns.setdefault("booking_id", f"done-{Refund.objects.count()}")
    given = {
        "status": "completed",
        "stripe_status": "succeeded",
        "stripe_refund_id": f"re_{booking}",
    }
    return RefundFactory.create(**(given | columns))


def refused(**columns: Any) -> Refund:
    """Make a refund that Stripe refused, and that a person looks at."""
    given = {
        "status": "failed",
        "needs_review": True,
        "first_sent_at": in_(hours=-1),
        "attempts": 1,
        "last_error": "Stripe refused, and lists no refund: Insufficient funds.",
    }
    return RefundFactory.create(**(given | columns))


def settled(**columns: Any) -> Refund:
    by = {"settled_at": timezone.now(), "settled_by": "ada", "settlement": "paid by hand"}
    return refused(**({"needs_review": False} | by | columns))


def choose(client: Client, action: str, *rows: Refund, **data: Any) -> Any:
    """Select refunds and press the button; gives what comes."""
    pks = [row.pk for row in rows]
    url = listing(Refund)
    return client.post(url, {"action": action, "_selected_action": pks} | data, follow=True)


def confirm(client: Client, asked: Any, **answers: str) -> Any:
    """Fill in a confirmation that was shown, and send it."""
    [form] = re.findall(r'<form method="post">.*?</form>', asked.content.decode(), re.DOTALL)
    inputs = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form)
    data: dict[str, list[str]] = {}
    for name, value in inputs:
        data.setdefault(name, []).append(value)
    return client.post(listing(Refund), data | answers, follow=True)


def columns_of(row: Refund) -> dict[str, Any]:
    return dict(Refund.objects.filter(pk=row.pk).values().get())


def kept(row: Refund) -> list[tuple[str, str]]:
    """Give who decided what about a refund, as the admin's history has it."""
    entries = LogEntry.objects.filter(object_id=str(row.pk)).order_by("pk")
    return [(entry.user.username, entry.get_change_message()) for entry in entries]


class TestTheList:
    def test_it_shows_what_needs_a_person_then_what_is_due_then_the_newest(
        self, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        older, newer = completed(created_at=in_(days=-9)), completed(created_at=in_(days=-2))
        closed = settled(created_at=in_(days=-5))
        later = in_progress(next_attempt_at=in_(hours=1))
        stuck = in_progress(created_at=in_(days=-20))
        held = in_progress(lease_until=in_(minutes=2))
        due = in_progress(next_attempt_at=in_(seconds=-5))
        waits, waits_longer = refused(), completed(needs_review=True)
        Refund.objects.filter(pk=waits_longer.pk).update(updated_at=in_(days=-1))
        expected = [waits_longer, waits, due, held, later, stuck, newer, closed, older]
        assert listed(admin_client, Refund) == expected
        for size in range(1, 5):  # the same, page by page
            monkeypatch.setattr(refund_admin.RefundAdmin, "list_per_page", size)
            pages = [
                listed(admin_client, Refund, p=number)
                for number in range(1, -(-len(expected) // size) + 1)
            ]
            assert [row for rows in pages for row in rows] == expected
            assert {len(rows) for rows in pages[:-1]} == {size}

    def test_it_sorts_by_booking_when_a_person_asks_for_it(
        self, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        b, a, c = refused(booking_id="b"), completed(booking_id="a"), completed(booking_id="c")
        monkeypatch.setattr(refund_admin.RefundAdmin, "list_per_page", 2)
        assert listed(admin_client, Refund, o=1) == [a, b]
        assert listed(admin_client, Refund, o=-1) == [c, b]

    def test_it_shows_amounts_and_marks(self, admin_client: Client) -> None:
        refused(booking_id="BK-1", amount_minor=1500, currency="jpy")
        settled(booking_id="BK-2", amount_minor=15_050)
        completed(stripe_status="requires_action", attempts=7)
        shown = admin_client.get(listing(Refund)).content.decode()
        assert '<td class="field-amount">1500 JPY</td>' in shown
        assert '<td class="field-amount">150.50 EUR</td>' in shown
        assert shown.count('<strong class="mark needs-review">needs review</strong>') == 1
        assert shown.count('<strong class="mark settled">settled</strong>') == 1
        assert '<td class="field-at_stripe">requires action</td>' in shown
        assert '<td class="field-attempts">7</td>' in shown

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ({"person": "awaited"}, {"refused"}),
            ({"person": "settled"}, {"settled"}),
            ({"status": "completed"}, {"done", "sent back"}),
            ({"status": "in_progress"}, {"due", "gone", "held", "later"}),
            ({"stripe_status": "failed"}, {"sent back"}),
            ({"due": "now"}, {"due", "gone"}),
            ({"due": "later"}, {"later"}),
            ({"due": "under-way"}, {"held"}),
            ({"person": "awaited", "status": "completed"}, set()),
            ({"q": "re_done"}, {"done"}),
            ({"q": "re_don"}, set()),
            ({"q": "pi_held"}, {"held"}),
            ({"q": " sent back "}, {"sent back"}),
            ({"q": "sent"}, set()),
            ({"q": idempotency_key("later")}, {"later"}),
        ],
    )
    def test_it_is_filtered_and_searched_by(
        self, admin_client: Client, query: dict[str, str], found: set[str]
    ) -> None:
        refused(booking_id="refused")
        settled(booking_id="settled")
        completed(booking_id="done")
        completed(booking_id="sent back", stripe_status="failed")
        in_progress(booking_id="due", next_attempt_at=in_(seconds=-1))
        in_progress(booking_id="gone", lease_until=in_(seconds=-1), next_attempt_at=in_(hours=1))
        in_progress(booking_id="held", payment_id="pi_held", lease_until=in_(minutes=1))
        in_progress(booking_id="later", next_attempt_at=in_(hours=1))
        rows = listed(admin_client, Refund, **query)
        assert {row.booking_id for row in rows} == found

    def test_it_takes_no_more_queries_when_longer_and_reads_no_payloads(
        self, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(refund_admin.RefundAdmin, "list_per_page", 6)

        def grow() -> list[str]:
            for _ in range(3):
                refused(), in_progress(), completed()
            with CaptureQueriesContext(connection) as queries:
                text(admin_client.get(listing(Refund), {"p": 2}))
            return [query["sql"] for query in queries]

        first, second = grow(), grow()
        assert len(second) <= len(first) <= 8
        assert not [sql for sql in first + second if "_payload" in sql]

    def test_it_cuts_long_texts(self, admin_client: Client) -> None:
        refused(booking_id="B" * 255, payment_id="p" * 255, last_error="why " * 200)
        shown = text(admin_client.get(listing(Refund)))
        cells = "".join(re.findall(r'class="field-.*?</t[dh]>', shown))
        assert "B" * 59 + "…" in cells
        assert "B" * 60 not in cells
        assert "p" * 40 not in cells
        assert "why " * 40 not in cells


def moment(value: Any) -> str:
    return f"{value:%Y-%m-%d %H:%M:%S} UTC"


LATER, SOON, PAST = in_(hours=3), in_(minutes=3), in_(seconds=-3)
REFUSED = {"status": "failed", "needs_review": True, "last_error": "refused"}
DONE = {"status": "completed", "stripe_refund_id": "re_1", "stripe_status": "succeeded"}
CLOSED = {"settled_at": PAST, "settled_by": "ada"}


class TestWhatIsNext:
    @pytest.mark.parametrize(
        ("columns", "said"),
        [
            (REFUSED, "waits for a person: refused"),
            ({"needs_review": True}, "waits for a person"),
            (REFUSED | {"next_attempt_at": PAST},
             "waits for a person: refused; due now: the next sweep takes it"),
            (REFUSED | {"next_attempt_at": LATER},
             f"waits for a person: refused; due at {moment(LATER)}"),
            (REFUSED | {"lease_until": SOON},
             f"waits for a person: refused; under way until {SOON:%H:%M:%S} UTC"),
            ({"lease_until": SOON, "last_error": "503"}, f"under way until {SOON:%H:%M:%S} UTC"),
            ({"lease_until": SOON, "next_attempt_at": PAST},
             f"under way until {SOON:%H:%M:%S} UTC, then due again"),
            ({"lease_until": PAST}, "due now: its worker is gone, the next sweep takes it"),
            ({"lease_until": PAST, "next_attempt_at": LATER},
             "due now: its worker is gone, the next sweep takes it"),
            ({"next_attempt_at": PAST, "last_error": "503"}, "due now: the next sweep takes it"),
            ({"next_attempt_at": LATER, "last_error": "503"}, f"due at {moment(LATER)}: 503"),
            ({"next_attempt_at": LATER}, f"due at {moment(LATER)}"),
            (DONE, "nothing: done"),
            (DONE | {"next_attempt_at": PAST}, "due now: the next sweep takes it"),
            (DONE | {"lease_until": SOON}, f"under way until {SOON:%H:%M:%S} UTC"),
            (CLOSED, "nothing: settled by ada"),
            (DONE | CLOSED, "nothing: settled by ada"),
            (CLOSED | {"last_error": "503", "next_attempt_at": LATER},
             f"settled by ada; due at {moment(LATER)}"),
            (CLOSED | REFUSED, "waits for a person: refused"),
            ({"status": "failed"}, "nothing: Stripe refused it"),
            ({}, "nothing by itself, though it is not done: try it now"),
        ],
    )  # fmt: skip
    def test_it_is_true_for(self, admin_client: Client, columns: dict[str, Any], said: str) -> None:
        row = in_progress(**columns)
        shown = text(admin_client.get(listing(Refund)))
        assert f'<td class="field-next_briefly">{said}</td>' in shown
        assert f"<strong>{said}</strong>" in text(admin_client.get(page(row)))


class TestThePage:
    def test_it_shows_what_stripe_was_asked_and_said(self, admin_client: Client) -> None:
        row = completed(
            booking_id="BK-é",
            payment_id="pi_7",
            first_sent_at=SOON,
            response_payload={"id": "re_é"},
        )
        shown = text(admin_client.get(page(row)))
        assert '"metadata": {\n    "booking_id": "BK-é",' in shown
        assert '{\n  "id": "re_é"\n}' in shown
        assert row.idempotency_key in shown
        assert moment(SOON) in shown
        assert "succeeded: the bank has it" in shown
        assert "completed: Stripe has the refund" in shown

    def test_it_shows_who_settled_it_and_why(self, admin_client: Client) -> None:
        shown = admin_client.get(page(settled(settlement="paid in cash"))).content.decode()
        assert "paid in cash" in shown
        assert '<strong class="mark settled">settled</strong>' in shown
        assert "Settlement" not in text(admin_client.get(page(refused())))

    def test_it_tells_the_last_problem_once(self, admin_client: Client) -> None:
        for row in (refused(last_error="out of money"), settled(last_error="out of money")):
            assert text(admin_client.get(page(row))).count("out of money") == 1

    @pytest.mark.parametrize(
        ("key", "folder"),
        [("sk_test_x", "test/"), ("rk_test_x", "test/"), ("sk_live_x", ""), ("rk_live_x", "")],
    )
    def test_it_links_to_the_payment_in_stripes_dashboard(
        self, admin_client: Client, settings: Any, key: str, folder: str
    ) -> None:
        settings.STRIPE_SECRET_KEY = key
        shown = admin_client.get(page(refused(payment_id='pi/"?a'))).content.decode()
        url = f"https://dashboard.stripe.com/{folder}payments/pi%2F%22%3Fa"
        assert f'<a href="{url}" target="_blank" rel="noopener noreferrer">pi/&quot;?a</a>' in shown

    def test_it_links_to_what_else_is_kept_of_the_booking(self, admin_client: Client) -> None:
        settle(CREATED, events.created(TourFactory.create().pk, "BK-42"))
        row = refused(booking_id="BK-42")
        shown = text(admin_client.get(page(row)))
        reservation, event = Reservation.objects.get(), ProcessedEvent.objects.get()
        assert f'href="{page(reservation)}"' in shown
        assert f'href="{listing(ProcessedEvent)}?aggregate_id=BK-42"' in shown
        assert f'href="{page(row)}"' not in shown
        assert f'href="{page(row)}"' in text(admin_client.get(page(event)))

    def test_it_has_the_buttons_that_mean_something(self, admin_client: Client) -> None:
        def buttons(row: Refund) -> list[str]:
            shown = text(admin_client.get(page(row)))
            return re.findall(r'name="action" value="(\w+)"', shown)

        assert buttons(refused()) == ["try_now", "settle", "reissue"]
        assert buttons(completed(needs_review=True)) == ["try_now", "settle"]
        assert buttons(completed()) == buttons(settled()) == buttons(in_progress()) == ["try_now"]
        assert buttons(in_progress(lease_until=SOON)) == []

    def test_even_a_superuser_can_only_look(self, admin_client: Client) -> None:
        row = refused()
        was = columns_of(row)
        assert admin_client.get(reverse("admin:payments_refund_add")).status_code == 403
        assert admin_client.post(page(row), {"status": "completed"}).status_code == 403
        assert admin_client.post(page(row, "delete"), {"post": "yes"}).status_code == 403
        choose(admin_client, "delete_selected", row, post="yes")
        assert columns_of(row) == was

    def test_outcomes_of_the_consumer_can_be_filtered_by(self, admin_client: Client) -> None:
        shown = text(admin_client.get(listing(ProcessedEvent)))
        for outcome, meaning in Outcome.choices:
            assert f"?outcome={outcome}" in shown
            assert meaning in shown


class TestForeignText:
    def test_it_is_only_text_everywhere(self, admin_client: Client, stripe: Sandbox) -> None:
        row = refused(
            booking_id=EVIL + TURNED,
            payment_id=EVIL + TURNED,
            last_error=EVIL + TURNED,
            response_payload={EVIL: EVIL + TURNED},
        )
        reissue = choose(admin_client, "reissue", row)
        asked = choose(admin_client, "settle", row)
        pages = [
            admin_client.get(listing(Refund)),
            admin_client.get(page(row)),
            reissue,
            asked,
            confirm(admin_client, asked, why=EVIL + TURNED),
            choose(admin_client, "try_now", row),
            admin_client.get(page(row)),
        ]
        for response in pages:
            shown = response.content.decode()
            assert response.status_code == 200
            assert "<script>alert" not in shown
            assert "\x1b" not in shown
            assert "\u202e" not in shown
            assert "txt\\u202eexe\\u001b[2J" in shown


class TestTryNow:
    def test_it_makes_it_due_under_the_same_key(self, admin_client: Client) -> None:
        row = refused(attempts=9)
        response = choose(admin_client, "try_now", row)
        assert "1 refund taken up by the next sweep, within 60 seconds" in messages(response)
        was, row = row, Refund.objects.get()
        assert row.idempotency_key == was.idempotency_key
        assert (row.status, row.needs_review, row.attempts) == ("in_progress", False, 0)
        assert row.next_attempt_at is not None
        assert row.next_attempt_at <= timezone.now()
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
        assert row.idempotency_key == idempotency_key("BK-1", issue=2)
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
    def test_it_opens_no_transaction(self, admin_client: Client, row: Refund) -> None:
        asked = choose(admin_client, "reissue", row)
        with statements_in_transactions("idempotency_store") as within:
            confirm(admin_client, asked, **LOOKED)
        row.refresh_from_db()
        assert row.idempotency_key == idempotency_key("BK-1", issue=2)
        assert len(within) >= 2
        assert not any(within)

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
        row.refresh_from_db()
        assert row.idempotency_key == idempotency_key("BK-1")
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


ACTIONS = {"try_now": "retry", "settle": "settle", "reissue": "reissue"}


class TestPermissions:
    @pytest.fixture
    def row(self, payment: str) -> Refund:
        return refused(payment_id=payment)

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
        buttons = fields(text(client.get(page(row))), 'class="resolutions"')
        asked = client.post(listing(Refund), buttons | {"action": "settle"})
        confirm(client, asked, why="a person decided")
        assert Refund.objects.get().settlement == "a person decided"
