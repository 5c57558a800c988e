"""Cancellation e-mails in the admin: the list and the page."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from booking_platform.messaging.models import ProcessedEvent
from notifications import admin as email_admin
from notifications.models import CancellationEmail
from notifications.rules import Outcome
from tests.factories import EmailFactory, RefundFactory
from tests.integration.admin_pages import (
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
    text,
)
from tests.integration.email_rows import (
    failed,
    forgotten,
    pending,
    sending,
    sent,
    settled,
    uncertain,
)

pytestmark = pytest.mark.django_db


class TestTheList:
    def test_it_shows_uncertain_ones_then_failed_ones_then_what_is_due_then_the_newest(
        self, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        older, newer = sent(created_at=in_(days=-9)), sent(created_at=in_(days=-2))
        closed = settled(created_at=in_(days=-5))
        held, due = sending(), pending(next_attempt_at=in_(seconds=-5))
        stuck, later = pending(), pending(next_attempt_at=in_(hours=1))
        refused_before, refused = failed(), failed()
        unsure_before, unsure = forgotten(), uncertain()
        for row in (refused_before, unsure_before):
            CancellationEmail.objects.filter(pk=row.pk).update(updated_at=in_(days=-1))
        expected = [
            *(unsure_before, unsure, refused_before, refused),
            *(due, held, later, stuck, newer, closed, older),
        ]
        assert listed(admin_client, CancellationEmail) == expected
        for size in range(1, 6):  # the same, page by page
            monkeypatch.setattr(email_admin.CancellationEmailAdmin, "list_per_page", size)
            pages = [
                listed(admin_client, CancellationEmail, p=number)
                for number in range(1, -(-len(expected) // size) + 1)
            ]
            assert [row for rows in pages for row in rows] == expected

    def test_it_keeps_its_order_over_more_than_a_thousand(self, admin_client: Client) -> None:
        states = ("sent", "pending", "failed", "sent", "uncertain")
        rows = EmailFactory.build_batch(1_200)
        for number, row in enumerate(rows):
            row.state, row.created_at = states[number % 5], in_(minutes=-number)
        CancellationEmail.objects.bulk_create(rows)
        shown = [row for p in range(1, 13) for row in listed(admin_client, CancellationEmail, p=p)]
        assert len({row.pk for row in shown}) == 1_200
        assert [row.state for row in shown] == (
            ["uncertain"] * 240 + ["failed"] * 240 + ["pending"] * 240 + ["sent"] * 480
        )
        newest_first = [row.created_at for row in shown[-480:]]
        assert newest_first == sorted(newest_first, reverse=True)

    def test_it_sorts_by_booking_when_a_person_asks_for_it(self, admin_client: Client) -> None:
        b, a = uncertain(booking_id="b"), sent(booking_id="a")
        assert listed(admin_client, CancellationEmail) == [b, a]
        assert listed(admin_client, CancellationEmail, o=1) == [a, b]

    def test_it_shows_whom_it_is_to_and_marks(self, admin_client: Client) -> None:
        failed(recipient="ann@example.com", locale="pt-br", attempts=7)
        settled(), forgotten()
        shown = admin_client.get(listing(CancellationEmail)).content.decode()
        assert "ann@example.com" in cells(shown, "addressee")
        assert "forgotten" in cells(shown, "addressee")
        assert "pt-br" in cells(shown, "language")
        assert "7" in cells(shown, "attempts")
        assert shown.count('<strong class="mark needs-review">needs review</strong>') == 2
        assert shown.count('<strong class="mark settled">settled</strong>') == 1

    @pytest.mark.parametrize(
        ("remaining", "step"),
        [(0, "whole booking"), (1, "keeps 1 seat"), (12, "keeps 12 seats")],
    )
    def test_it_shows_the_step(self, admin_client: Client, remaining: int, step: str) -> None:
        row = uncertain(seats_remaining=remaining, step_named=True)
        shown = text(admin_client.get(listing(CancellationEmail)))
        assert step in cells(shown, "step")
        assert re.search(rf"Step\b.*?{step}<", text(admin_client.get(page(row))), re.DOTALL)
        assert step in text(choose(admin_client, "resend", row))

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ({"person": "awaited"}, {"failed", "uncertain"}),
            ({"person": "settled"}, {"settled"}),
            ({"state__exact": "uncertain"}, {"uncertain", "settled"}),
            ({"state__exact": "pending"}, {"due", "gone", "later one"}),
            ({"person": "awaited", "state__exact": "failed"}, {"failed"}),
            ({"due": "now"}, {"due", "gone"}),
            ({"due": "later"}, {"later one"}),
            ({"due": "under-way"}, {"held"}),
            ({"q": " later one "}, {"later one"}),
            ({"q": "later"}, set()),
            ({"q": "ANN@example.COM"}, {"sent"}),
            ({"q": "ann@example"}, set()),
            ({"q": "<1@example.com>"}, {"failed"}),
        ],
    )
    def test_it_is_filtered_and_searched_by(
        self, admin_client: Client, query: dict[str, str], found: set[str]
    ) -> None:
        failed(booking_id="failed", message_id="<1@example.com>")
        uncertain(booking_id="uncertain")
        settled(booking_id="settled")
        sent(booking_id="sent", recipient="Ann@Example.com")
        pending(booking_id="due", next_attempt_at=in_(seconds=-1))
        pending(booking_id="gone", lease_until=in_(seconds=-1))
        sending(booking_id="held")
        pending(booking_id="later one", next_attempt_at=in_(hours=1))
        rows = listed(admin_client, CancellationEmail, **query)
        assert {row.booking_id for row in rows} == found

    def test_it_takes_no_more_queries_when_longer_and_reads_no_bodies(
        self, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(email_admin.CancellationEmailAdmin, "list_per_page", 6)

        def grow() -> list[str]:
            for _ in range(3):
                uncertain(), failed(), pending(), sent()
            with CaptureQueriesContext(connection) as queries:
                text(admin_client.get(listing(CancellationEmail), {"p": 2}))
            return [query["sql"] for query in queries]

        first, second = grow(), grow()
        assert len(second) <= len(first) <= 9
        assert not [sql for sql in first + second if "_body" in sql]

    def test_it_cuts_long_texts(self, admin_client: Client) -> None:
        failed(booking_id="B" * 255, recipient="r" * 242 + "@example.com", last_error="why " * 99)
        shown = text(admin_client.get(listing(CancellationEmail)))
        listed_cells = "".join(cells(shown, r"\w+"))
        assert "B" * 59 + "…" in listed_cells
        assert "r" * 39 + "…" in listed_cells
        assert "why " * 40 not in listed_cells


NO_ANSWER = {"state": "uncertain", "last_error": "no answer"}
CLOSED = {"settled_at": PAST, "settled_by": "ada"}


class TestWhatIsNext:
    @pytest.mark.parametrize(
        ("columns", "said"),
        [
            (NO_ANSWER, "waits for a person: no answer"),
            ({"state": "failed"}, "waits for a person"),
            (NO_ANSWER | CLOSED, "nothing: settled by ada"),
            ({"lease_until": SOON, "last_error": "451"}, f"under way until {SOON:%H:%M:%S} UTC"),
            ({"state": "sending", "lease_until": SOON}, f"under way until {SOON:%H:%M:%S} UTC"),
            ({"lease_until": PAST}, "due now: its worker is gone, the next sweep takes it"),
            ({"next_attempt_at": PAST, "last_error": "451"}, "due now: the next sweep takes it"),
            ({"next_attempt_at": LATER, "last_error": "451"}, f"due at {moment(LATER)}: 451"),
            ({"state": "sent"}, "nothing: sent"),
            ({}, "nothing by itself, though it is not sent: send it again"),
        ],
    )
    def test_it_is_true_for(self, admin_client: Client, columns: dict[str, Any], said: str) -> None:
        row = pending(**columns)
        shown = text(admin_client.get(listing(CancellationEmail)))
        assert said in cells(shown, "next_briefly")
        assert f"<strong>{said}</strong>" in text(admin_client.get(page(row)))


class TestThePage:
    def test_it_shows_the_mail(self, admin_client: Client) -> None:
        row = sent(text_body="Bonjour,\n  à < bientôt", sent_at=SOON, wanted_at=PAST)
        shown = text(admin_client.get(page(row)))
        for fact in (row.recipient, row.subject, row.message_id, moment(SOON), moment(PAST)):
            assert fact in shown
        assert '<pre class="body">Bonjour,\n  à < bientôt</pre>' in shown
        assert "sent: the mail server has accepted it" in shown
        assert row.html_body in shown

    def test_it_says_when_address_and_text_were_forgotten(self, admin_client: Client) -> None:
        shown = text(admin_client.get(page(forgotten(forgotten_at=PAST))))
        assert re.search(rf"Address and text forgotten.*?{moment(PAST)}", shown, re.DOTALL)
        assert "<iframe" not in shown
        assert "forgotten" not in text(admin_client.get(page(uncertain())))

    def test_it_shows_who_settled_it_and_why(self, admin_client: Client) -> None:
        shown = text(admin_client.get(page(settled(settlement="told in the shop"))))
        assert "told in the shop" in shown
        assert '<strong class="mark settled">settled</strong>' in shown
        assert "Settlement" not in text(admin_client.get(page(uncertain())))

    def test_it_tells_the_last_problem_once(self, admin_client: Client) -> None:
        for row in (failed(last_error="no such user"), settled(last_error="no such user")):
            assert text(admin_client.get(page(row))).count("no such user") == 1

    def test_it_links_to_what_else_is_kept_of_the_booking(self, admin_client: Client) -> None:
        row, refund = uncertain(booking_id="BK-42"), RefundFactory.create(booking_id="BK-42")
        shown = text(admin_client.get(page(row)))
        assert f'href="{page(refund)}"' in shown
        assert f'href="{listing(ProcessedEvent)}?aggregate_id=BK-42"' in shown
        assert f'href="{page(row)}"' not in shown
        assert f'href="{page(row)}"' in text(admin_client.get(page(refund)))

    def test_it_links_to_the_other_steps(self, admin_client: Client) -> None:
        row = uncertain(booking_id="BK-42")
        step = sent(booking_id="BK-42", seats_remaining=2)
        shown = text(admin_client.get(page(row)))
        link = f'<a href="{page(step)}">cancellation e-mail BK-42, keeps 2 seats: sent</a>'
        assert link in shown

    def test_it_has_the_buttons_that_mean_something(self, admin_client: Client) -> None:
        def buttons(row: CancellationEmail) -> list[str]:
            shown = text(admin_client.get(page(row)))
            return re.findall(r'name="action" value="(\w+)"', shown)

        assert buttons(uncertain()) == buttons(failed()) == ["resend", "settle"]
        assert buttons(forgotten()) == ["settle"]
        assert buttons(pending(next_attempt_at=LATER)) == ["resend"]
        assert buttons(pending(lease_until=SOON)) == buttons(sending()) == []
        assert buttons(sending(lease_until=PAST)) == buttons(sent()) == buttons(settled()) == []

    def test_even_a_superuser_can_only_look(self, admin_client: Client) -> None:
        row = uncertain()
        was = columns_of(row)
        add = reverse("admin:notifications_cancellationemail_add")
        assert admin_client.get(add).status_code == 403
        assert admin_client.post(page(row), {"state": "sent"}).status_code == 403
        assert admin_client.post(page(row, "delete"), {"post": "yes"}).status_code == 403
        choose(admin_client, "delete_selected", row, post="yes")
        assert columns_of(row) == was

    def test_outcomes_of_the_consumer_can_be_filtered_by(self, admin_client: Client) -> None:
        shown = text(admin_client.get(listing(ProcessedEvent)))
        for outcome, meaning in Outcome.choices:
            assert f"?outcome={outcome}" in shown
            assert meaning in shown


EVIL = "\"'><script>alert(1)</script></iframe>&%2F..#?"
TURNED = "txt\u202eexe\x1b[2J"
HOSTILE = (
    f"<script>alert(1)</script>{EVIL}</textarea></pre></div>{TURNED}<img src=x onerror=alert(1)>"
)


class Page(HTMLParser):
    """What a browser makes of a page: its elements, and all text that others may have written."""

    def __init__(self, shown: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, list[str]]] = []
        self.frames: list[dict[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(shown)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, [name for name, _ in attrs]))
        if tag == "iframe":
            self.frames.append(dict(attrs))
        self.texts += [value or "" for name, value in attrs if name != "srcdoc"]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


class TestForeignText:
    def test_a_hostile_mail_stays_inside_its_frame(self, admin_client: Client) -> None:
        columns = ("booking_id", "recipient", "locale", "subject", "message_id", "last_error")
        plain = uncertain(**dict.fromkeys(columns, "plain"))
        evil = uncertain(
            **dict.fromkeys(columns, EVIL[:20] + TURNED),
            html_body=HOSTILE,
            text_body=HOSTILE,
        )
        harmless, shown = (
            Page(admin_client.get(page(row)).content.decode()) for row in (plain, evil)
        )
        assert shown.elements == harmless.elements
        [frame] = shown.frames
        assert frame["sandbox"] == ""
        assert frame["referrerpolicy"] == "no-referrer"
        policy = "default-src 'none'; style-src 'unsafe-inline'"
        assert frame["srcdoc"] == (
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">{HOSTILE}'
        )
        outside = "".join(shown.texts)
        assert not {"\u202e", "\x1b"} & set(outside)
        assert outside.count("txt\\u202eexe\\u001b[2J") >= len(columns)

    def test_a_link_in_a_mail_loads_nothing_into_the_frame(self, admin_client: Client) -> None:
        shown = admin_client.get(page(uncertain())).content.decode()
        head, _, _ = shown.partition("</head>")
        assert '<meta http-equiv="Content-Security-Policy" content="frame-src \'none\'">' in head

    def test_it_is_only_text_everywhere_else(self, admin_client: Client) -> None:
        row = uncertain(booking_id=EVIL + TURNED, recipient=TURNED + EVIL, last_error=EVIL + TURNED)
        asked = choose(admin_client, "resend", row)
        for response in (
            admin_client.get(listing(CancellationEmail)),
            asked,
            confirm(admin_client, asked, why=EVIL + TURNED),
        ):
            shown = response.content.decode()
            assert response.status_code == 200
            assert "<script>alert" not in shown
            assert "\u202e" not in shown
            assert "txt\\u202eexe\\u001b[2J" in shown
