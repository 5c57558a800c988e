"""Refunds in the admin: the list and the page."""

import re
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from booking_platform.development.stripe_sandbox import Sandbox
from booking_platform.messaging.models import ProcessedEvent
from catalog.models import Reservation
from payments import admin as refund_admin
from payments import reviews
from payments.decisions import advice_for
from payments.keys import idempotency_key
from payments.models import Refund
from payments.requesting import Outcome
from tests import events
from tests.factories import TourFactory
from tests.integration.admin_pages import (
    CREATED,
    LATER,
    PAST,
    SOON,
    cells,
    choose,
    columns_of,
    confirm,
    in_,
    listed,
    listing,
    moment,
    page,
    settle,
    text,
)
from tests.integration.refund_rows import awaiting, completed, in_progress, refused, settled

EVIL = "\"'><script>alert(1)</script>&%2F..#?"
TURNED = "txt\u202eexe\x1b[2J"

pytestmark = pytest.mark.django_db


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
        assert "1500 JPY" in cells(shown, "amount")
        assert "150.50 EUR" in cells(shown, "amount")
        assert shown.count('<strong class="mark needs-review">needs review</strong>') == 1
        assert shown.count('<strong class="mark settled">settled</strong>') == 1
        assert "requires action" in cells(shown, "at_stripe")
        assert "7" in cells(shown, "attempts")

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
            ({"q": idempotency_key("later", "pi_later")}, {"later"}),
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
        in_progress(booking_id="later", payment_id="pi_later", next_attempt_at=in_(hours=1))
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

    def test_it_shows_steps_and_amounts_that_are_not_known_yet(self, admin_client: Client) -> None:
        refused()
        in_progress(seats_remaining=1)
        in_progress(seats_remaining=2, amount_minor=None, currency="", amount_asked=Decimal(80))
        shown = text(admin_client.get(listing(Refund)))
        for step in ("not named: taken for the whole booking", "keeps 1 seat", "keeps 2 seats"):
            assert step in cells(shown, "step")
        assert "80.00, in the payment's currency" in cells(shown, "amount")

    def test_it_is_filtered_by_why_it_waits(self, admin_client: Client) -> None:
        large, foreign = awaiting(reviews.ABOVE_LIMIT), awaiting(reviews.OTHER_BOOKING)
        plain, newer = refused(), awaiting("of_a_newer_version")
        in_progress(review_code=reviews.ABOVE_LIMIT)
        assert listed(admin_client, Refund, review=reviews.ABOVE_LIMIT) == [large]
        assert listed(admin_client, Refund, review=reviews.OTHER_BOOKING) == [foreign]
        assert listed(admin_client, Refund, review="other") == [plain, newer]
        assert listed(admin_client, Refund, review="no such reason") == []
        shown = text(admin_client.get(listing(Refund)))
        for code, review in reviews.REVIEWS.items():
            assert f"?review={code}" in shown
            assert review.meaning in shown

    def test_it_cuts_long_texts(self, admin_client: Client) -> None:
        refused(booking_id="B" * 255, payment_id="p" * 255, last_error="why " * 200)
        shown = text(admin_client.get(listing(Refund)))
        listed_cells = "".join(cells(shown, r"\w+"))
        assert "B" * 59 + "…" in listed_cells
        assert "B" * 60 not in listed_cells
        assert "p" * 40 not in listed_cells
        assert "why " * 40 not in listed_cells


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
            ({"status": "failed"}, "nothing: it can't be made"),
            ({}, "nothing by itself, though it is not done: try it now"),
        ],
    )  # fmt: skip
    def test_it_is_true_for(self, admin_client: Client, columns: dict[str, Any], said: str) -> None:
        row = in_progress(**columns)
        shown = text(admin_client.get(listing(Refund)))
        assert said in cells(shown, "next_briefly")
        assert f"<strong>{said}</strong>" in text(admin_client.get(page(row)))


class TestThePage:
    def test_it_shows_what_stripe_was_asked_and_said(self, admin_client: Client) -> None:
        row = completed(
            booking_id="BK-é",
            payment_id="pi_7",
            first_sent_at=SOON,
            request_payload={"metadata": {"booking_id": "BK-é"}},
            response_payload={"id": "re_é"},
        )
        shown = text(admin_client.get(page(row)))
        assert '"metadata": {\n    "booking_id": "BK-é"\n  }' in shown
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

    def test_it_shows_what_a_person_has_to_judge(self, admin_client: Client) -> None:
        row = awaiting(reviews.UNNAMED_PAYMENT, seats_remaining=3)
        shown = text(admin_client.get(page(row)))
        assert "a further payment of the booking, whose metadata name no booking" in shown
        assert "keeps 3 seats" in shown
        assert "none yet" in shown  # no request is frozen before the look
        assert "of_a_newer_version" in text(admin_client.get(page(awaiting("of_a_newer_version"))))
        for other in (in_progress(review_code=reviews.ABOVE_LIMIT), refused()):
            assert "why it waits" not in text(admin_client.get(page(other))).lower()

    @pytest.mark.parametrize("code", [*reviews.REVIEWS, ""])
    def test_it_says_what_to_do(self, admin_client: Client, code: str) -> None:
        refund = awaiting(code)
        advice = advice_for(refund)
        assert advice in text(admin_client.get(page(refund)))
        assert advice in text(choose(admin_client, "settle", refund))
        if code in reviews.REVIEWS and reviews.REVIEWS[code].approvable:
            assert advice in text(choose(admin_client, "approve", refund))
            assert "approve" in advice.lower()

    def test_it_says_that_to_try_again_does_not_add_to_a_payment(
        self, admin_client: Client
    ) -> None:
        said = text(admin_client.get(page(awaiting(reviews.NOT_COVERED))))
        assert "To try now can't help while the payment is what it is" in said

    def test_it_says_what_its_buttons_do(self, admin_client: Client) -> None:
        refund = awaiting(reviews.ABOVE_LIMIT)
        shown = admin_client.get(page(refund))
        assert shown.context["decisions"]
        for how in shown.context["decisions"]:
            assert text(shown).count(how.explanation) == 2, how  # pointed at, and to be read

    def test_it_shows_who_approved_it_in_spite_of_what_and_why(self, admin_client: Client) -> None:
        row = completed(
            approved_at=SOON,
            approved_by="ada",
            approval="called the customer",
            approved_codes="above_limit by_hand",
        )
        shown = text(admin_client.get(page(row)))
        for fact in (moment(SOON), "ada", "called the customer"):
            assert fact in shown
        for code in (reviews.ABOVE_LIMIT, reviews.BY_HAND):
            assert reviews.REVIEWS[code].meaning in shown
        assert "Approval" not in text(admin_client.get(page(completed())))

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
        assert buttons(awaiting(reviews.BY_HAND)) == ["approve", "try_now", "settle", "reissue"]
        assert buttons(awaiting(reviews.NOT_COVERED)) == ["try_now", "settle", "reissue"]
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
            review_code=(EVIL + TURNED)[-30:],
            approval=EVIL + TURNED,
            approved_by=EVIL + TURNED,
            approved_codes=EVIL + TURNED,
            approved_at=PAST,
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
