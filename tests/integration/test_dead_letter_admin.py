"""Dead letters in the admin: real events, decisions, a real broker."""

import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import current_app
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from booking_platform.messaging import broker, dead_letters, leases
from booking_platform.messaging.groups import REPLAY_HEADER, Delivery
from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from booking_platform.messaging.rules import CONSUMERS
from booking_platform.operations import bulk, decisions
from booking_platform.operations.models import BulkJob
from tests import events
from tests.factories import TourFactory
from tests.integration.admin_pages import (
    CANCELLED,
    CREATED,
    NO_TOUR,
    REFUNDS,
    a_parked_event,
    before,
    choose,
    columns_of,
    confirm,
    fields,
    kept,
    listed,
    listing,
    messages,
    page,
    parked,
    settle,
    staff,
    text,
)
from tests.servers import free_port

pytestmark = pytest.mark.django_db

Sent = Callable[[], dict[int, bytes]]


def a_foreign_letter() -> DeadLetter:
    """Park a message of a queue that is none of ours."""
    given_up = Delivery(b"?", died_in="another.queue", died_of="expired")
    with transaction.atomic():
        dead_letters.park([dead_letters.from_broker(given_up, timezone.now())])
    return DeadLetter.objects.latest("pk")


def decide(client: Client, action: str, *letters: DeadLetter, why: str = "", **data: Any) -> Any:
    """Send a decision with its confirmation at once, as a form that was filled in does."""
    return choose(client, action, *letters, confirmed="yes", why=why, **data)


class TestDeadLetters:
    def test_the_list_shows_the_parked_ones_unless_asked_for_others(
        self, admin_client: Client
    ) -> None:
        open_one, closed = a_parked_event(), a_parked_event()
        dead_letters.discard(closed, by="ada", why="a test")
        assert listed(admin_client, DeadLetter) == [open_one]
        assert listed(admin_client, DeadLetter, state="discarded") == [closed]
        assert listed(admin_client, DeadLetter, state="all") == [closed, open_one]
        shown = text(admin_client.get(listing(DeadLetter)))
        assert "names a tour that does not exist" in shown
        assert f"payload.tourId is {NO_TOUR}: there is no such tour" in shown

    def test_search_and_filters_find(self, admin_client: Client) -> None:
        unknown, foreign = a_parked_event("evt-1"), a_foreign_letter()
        assert listed(admin_client, DeadLetter, q="evt-1") == [unknown]
        assert listed(admin_client, DeadLetter, q="gave it up") == [foreign]
        assert listed(admin_client, DeadLetter, reason__exact="unknown_tour") == [unknown]
        assert listed(admin_client, DeadLetter, queue=CREATED) == [unknown]
        assert listed(admin_client, DeadLetter, queue="other") == [foreign]

    def test_the_list_loads_no_bodies(self, admin_client: Client) -> None:
        letter = a_parked_event()
        with CaptureQueriesContext(connection) as queries:
            listed(admin_client, DeadLetter)
            text(choose(admin_client, "discard", letter))
        assert len(queries) > 5
        assert not [query["sql"] for query in queries if '"body"' in query["sql"]]

    def test_json_is_indented_and_its_numbers_stay_as_they_came(self, admin_client: Client) -> None:
        letter = parked(b'{"a":150.00,"b":[1e400],"c":"\\u202e"}')
        shown = text(admin_client.get(page(letter)))
        assert '{\n  "a": 150.00,\n  "b": [\n    1e400\n  ],\n  "c": "\\u202e"\n}' in shown

    @pytest.mark.parametrize(
        ("body", "shown"),
        [
            (b"<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
            (b"</pre><script>alert(1)", "&lt;/pre&gt;&lt;script&gt;alert(1)"),
            (b'{"eventId": "<script>alert(1)"}', "&lt;script&gt;alert(1)"),
            (b"NUL \0 and ESC \x1b[2J", "NUL \\u0000 and ESC \\u001b[2J"),
            (b"latin-1: \xe9t\xe9", "latin-1: \ufffdt\ufffd"),
            ("\u202etxt.exe".encode(), "\\u202etxt.exe"),
            (b"", "0 bytes"),
            (b"[" * 50_000, "only the first 20,000 characters"),
            (b"[" * 900 + b"1," * 10_000 + b"1" + b"]" * 900, "only the first 20,000 characters"),
            ("🎫".encode() * 20_000, "80,000 bytes</p>"),
            ("🎫".encode() * 20_001, "only the first 20,000 characters"),
        ],
    )
    def test_a_body_from_a_stranger_is_only_text(
        self, admin_client: Client, body: bytes, shown: str
    ) -> None:
        response = admin_client.get(page(parked(body)))
        assert response.status_code == 200
        assert shown in response.content.decode()
        assert b"<script>alert" not in response.content
        assert b"\0" not in response.content

    def test_of_ten_megabytes_only_the_beginning_is_read(self, admin_client: Client) -> None:
        letter = parked(b'{"eventId": "large", "pad": "' + b"<" * 10 * 1024 * 1024 + b'"}')
        admin_client.get(page(letter))  # compiles the templates
        tracemalloc.start()
        response = admin_client.get(page(letter))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert "10,485,791 bytes: only the first 20,000 characters" in text(response)
        assert len(response.content) < 150_000
        assert peak < 5_000_000

    def test_a_stranger_chooses_event_ids_and_details(self, admin_client: Client) -> None:
        evil = "<script>alert(1)</script>" * 9
        letter = parked(events.created(NO_TOUR, event_id=evil[:255], eventType=evil[:99]))
        for url in (listing(DeadLetter), page(letter)):
            assert b"<script>alert" not in admin_client.get(url).content
        for action in ("replay", "discard"):
            assert b"<script>alert" not in choose(admin_client, action, letter).content
        response = decide(admin_client, "discard", letter, why=evil)
        assert b"<script>alert" not in response.content

    def test_a_conflict_links_to_the_event_that_was_applied(self, admin_client: Client) -> None:
        tour = TourFactory.create()
        settle(CREATED, events.created(tour.pk, "BK-1", 1, event_id="twice"))
        letter = parked(events.created(tour.pk, "BK-1", 2, event_id="twice"))
        assert f'href="{page(ProcessedEvent.objects.get())}"' in text(
            admin_client.get(page(letter))
        )


class TestReplayAndDiscard:
    @pytest.fixture
    def sent(self) -> Iterator[Sent]:
        """Return a reader of the queue of created bookings: bodies by the letter they replay."""
        with current_app.connection_for_write() as connection:
            broker.declare(connection)
            channel: Any = connection.channel()
            channel.queue_purge(CREATED)

            def read() -> dict[int, bytes]:
                replayed = {}
                while message := channel.basic_get(CREATED, no_ack=True):
                    body = message.body
                    of = DeadLetter.objects.get(replay_token=message.headers[REPLAY_HEADER])
                    replayed[of.pk] = body.encode() if isinstance(body, str) else bytes(body)
                return replayed

            yield read

    def test_a_replay_sends_the_original_bytes_and_closes(
        self, admin_client: Client, sent: Sent
    ) -> None:
        letter = a_parked_event("evt-1")
        assert "REPLAY" in text(choose(admin_client, "replay", letter)).upper()
        assert sent() == {}
        response = decide(admin_client, "replay", letter, why="the tour exists now")
        assert "1 dead letter replayed: evt-1" in messages(response)
        assert sent() == {letter.pk: bytes(letter.body)}
        letter.refresh_from_db()
        assert letter.state == DeadLetter.State.REPLAYED
        assert (letter.resolved_by, letter.resolution) == ("admin", "the tour exists now")
        entry = LogEntry.objects.get()
        assert entry.get_change_message() == "replayed: the tour exists now"
        assert entry.get_edited_object() == letter
        assert "replayed: the tour exists now" in text(admin_client.get(page(letter, "history")))

    def test_a_replay_needs_no_reason_but_a_discard_does(
        self, admin_client: Client, sent: Sent
    ) -> None:
        letter, other = a_parked_event(), a_parked_event()
        decide(admin_client, "replay", letter)
        refused = decide(admin_client, "discard", other, why="   ")
        assert "This field is required." in text(refused)
        assert not DeadLetter.objects.filter(state="discarded").exists()
        response = decide(admin_client, "discard", other, why="a test of the partner")
        assert "1 dead letter discarded" in messages(response)
        assert sent().keys() == {letter.pk}
        other.refresh_from_db()
        assert (other.state, other.resolution) == ("discarded", "a test of the partner")
        assert LogEntry.objects.count() == 2

    def test_each_of_many_is_told_of(self, admin_client: Client, sent: Sent) -> None:
        good, also_good, closed = (a_parked_event(f"evt-{n}") for n in range(3))
        foreign = a_foreign_letter()
        dead_letters.discard(closed, by="ada", why="a test")
        response = decide(admin_client, "replay", good, foreign, closed, also_good)
        told = messages(response)
        assert "2 dead letters replayed: evt-0" in told
        assert "evt-2 from tour-catalog.booking-created is discarded" in told
        assert "no consumer has a queue of that name" in told
        assert sent().keys() == {good.pk, also_good.pk}
        assert LogEntry.objects.count() == 2

    def test_more_than_a_form_holds_are_done_in_portions(
        self, admin_client: Client, sent: Sent, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(decisions, "MOST_AT_ONCE", 3)
        monkeypatch.setattr(decisions, "LISTED", 2)
        letters = [a_parked_event(f"evt-{n}") for n in range(5)]
        shown = text(choose(admin_client, "replay", *letters))
        assert "5 are selected. These are the 3 oldest; do it again for the other 2." in shown
        assert "… and 1 more." in shown
        for letter in letters[:3]:
            assert f'name="_selected_action" value="{letter.pk}"' in shown
        decide(admin_client, "replay", *letters[:3])
        assert sent().keys() == {letter.pk for letter in letters[:3]}

    def test_one_that_comes_again_meanwhile_stays_open(
        self, admin_client: Client, sent: Sent, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        event = events.created(NO_TOUR, "BK-1")
        letter = parked(event)
        discard = dead_letters.discard

        def overtaken(seen: DeadLetter, **decision: Any) -> bool:
            settle(CREATED, event)
            return discard(seen, **decision)

        monkeypatch.setattr(dead_letters, "discard", overtaken)
        for action, log_entries in (("discard", 0), ("replay", 1)):
            if action == "discard":
                response = decide(admin_client, action, letter, why="decided")
            else:
                with before("UPDATE", "dead_letters", lambda: settle(CREATED, event)):
                    response = decide(admin_client, action, letter, why="decided")
            assert "it came again meanwhile" in messages(response)
            letter.refresh_from_db()
            assert letter.state == DeadLetter.State.PARKED
            assert LogEntry.objects.count() == log_entries
        assert sent().keys() == {letter.pk}
        assert letter.attempts == 3

    def test_a_broker_that_is_away_is_told_and_leaves_them_parked(
        self, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        letters = [a_parked_event(), a_parked_event()]
        away = f"amqp://guest:guest@127.0.0.1:{free_port()}//"
        monkeypatch.setenv("CELERY_BROKER_WRITE_URL", away)
        response = decide(admin_client, "replay", *letters, why="try")
        assert "The broker did not take the message" in messages(response)
        assert "Connection refused" in messages(response)
        assert "2 of those selected stay as they were" in messages(response)
        assert DeadLetter.objects.filter(state="parked").count() == 2
        assert not LogEntry.objects.exists()

    def test_an_open_letter_has_buttons_and_a_closed_one_has_none(
        self, admin_client: Client
    ) -> None:
        letter = a_parked_event()
        came = admin_client.get(page(letter) + "?_changelist_filters=queue%3Dother")
        assert '<form class="resolutions ' in text(came)
        target = f"{listing(DeadLetter)}?queue=other"  # the list that the person came from
        assert f'action="{target}"' in text(came)
        pressed = admin_client.post(target, {"action": "discard", "_selected_action": letter.pk})
        assert "Discard 1 dead letter" in text(pressed)
        data = {"action": "discard", "_selected_action": letter.pk, "confirmed": 1, "why": "done"}
        admin_client.post(target, data)
        shown = text(admin_client.get(page(letter)))
        assert 'class="resolutions ' not in shown
        assert "discarded: a person decided that it is not needed" in shown

    def test_view_only_staff_neither_see_nor_run_them(self, sent: Sent) -> None:
        letter, client = a_parked_event(), staff("view_deadletter")
        for url in (listing(DeadLetter), page(letter)):
            shown = text(client.get(url))
            assert 'name="action"' not in shown
        for action in ("replay", "discard"):
            decide(client, action, letter, why="forged")
        letter.refresh_from_db()
        assert letter.state == DeadLetter.State.PARKED
        assert sent() == {}

    @pytest.mark.parametrize(
        ("permission", "may", "may_not"),
        [
            ("replay_deadletter", "replay", "discard"),
            ("discard_deadletter", "discard", "replay"),
        ],
    )
    def test_each_has_a_permission_of_its_own(
        self, sent: Sent, permission: str, may: str, may_not: str
    ) -> None:
        letter, client = a_parked_event(), staff("view_deadletter", permission)
        assert f'name="action" value="{may}"' in text(client.get(page(letter)))
        assert f'name="action" value="{may_not}"' not in text(client.get(page(letter)))
        decide(client, may_not, letter, why="forged")
        assert DeadLetter.objects.get().state == DeadLetter.State.PARKED
        decide(client, may, letter, why="decided")
        assert DeadLetter.objects.get().state != DeadLetter.State.PARKED

    def test_get_requests_change_nothing(self, admin_client: Client) -> None:
        letter = a_parked_event()
        query: dict[str, Any] = {
            "action": "discard",
            "_selected_action": letter.pk,
            "confirmed": "1",
            "why": "x",
        }
        admin_client.get(listing(DeadLetter), query)
        assert DeadLetter.objects.get().state == DeadLetter.State.PARKED

    def test_the_forms_work_in_a_browser_and_not_from_a_strangers_page(self) -> None:
        letter, client = a_parked_event(), Client(enforce_csrf_checks=True)
        client.force_login(User.objects.create_superuser("admin"))
        assert decide(client, "discard", letter, why="forged").status_code == 403
        assert DeadLetter.objects.get().state == DeadLetter.State.PARKED
        buttons = fields(text(client.get(page(letter))), 'class="resolutions ')
        asked = client.post(listing(DeadLetter), buttons | {"action": "discard"})
        answers = fields(text(asked), 'method="post">')
        client.post(listing(DeadLetter), answers | {"why": "a person decided"})
        assert DeadLetter.objects.get().resolution == "a person decided"


class TestTheRightOfAQueue:
    """A replay to the refunds' queue moves money: it needs a right of its own."""

    NEEDED = "payments.request_refund (Can replay cancellations into the refunds' queue)"

    @pytest.fixture(autouse=True)
    def _queues(self) -> None:
        with current_app.connection_for_write() as connection:
            broker.declare(connection)

    def refund_letter(self, event_id: str = "evt-money") -> DeadLetter:
        return parked(events.body({"eventId": event_id}), REFUNDS)

    def unroutable_letter(self, event: dict[str, Any]) -> DeadLetter:
        lost = Delivery(events.body(event), routing_key="booking.mistyped")
        with transaction.atomic():
            dead_letters.park([dead_letters.unroutable(lost, timezone.now())])
        return DeadLetter.objects.latest("pk")

    def test_there_are_such_permissions(self) -> None:
        needed = {each.replay_permission for each in CONSUMERS.values()} - {None}
        assert needed == {"payments.request_refund"}
        assert Permission.objects.filter(codename="request_refund").exists()

    def test_without_it_the_others_are_replayed(self) -> None:
        client = staff("view_deadletter", "replay_deadletter")
        money, seats = self.refund_letter(), a_parked_event("evt-seats")
        response = decide(client, "replay", money, seats, why="try")
        assert "1 dead letter replayed: evt-seats" in messages(response)
        told = f"not replayed: for what goes to {REFUNDS} you need the permission {self.NEEDED}"
        assert told in messages(response)
        assert DeadLetter.objects.get(state="parked") == money
        assert columns_of(money)["replay_token"] == ""  # it was not even sent
        assert kept(money) == []

    def test_an_unroutable_one_that_reaches_the_queue_is_refused_too(self) -> None:
        client = staff("view_deadletter", "replay_deadletter")
        money = self.unroutable_letter(events.cancelled(1, "BK-1", event_id="lost"))
        seats = self.unroutable_letter(events.created(1, "BK-1", event_id="lost too"))
        response = decide(client, "replay", money, seats)
        assert self.NEEDED in messages(response)
        assert DeadLetter.objects.get(state="parked") == money

    def test_the_same_event_goes_to_another_queue_without_it(self) -> None:
        client = staff("view_deadletter", "replay_deadletter")
        letter = parked(events.cancelled(NO_TOUR, "BK-1"), CANCELLED)
        decide(client, "replay", letter)
        letter.refresh_from_db()
        assert letter.state == DeadLetter.State.REPLAYED

    def test_who_has_it_replays_and_who_has_it_alone_does_not(self) -> None:
        first, second = self.refund_letter("one"), self.refund_letter("two")
        alone = staff("view_deadletter", "request_refund")
        decide(alone, "replay", first, second, why="forged")
        assert DeadLetter.objects.filter(state="parked").count() == 2
        User.objects.all().delete()
        decide(staff("view_deadletter", "replay_deadletter", "request_refund"), "replay", first)
        assert DeadLetter.objects.get(state="parked") == second

    def test_to_discard_one_needs_it_too(self) -> None:
        letter = self.refund_letter()
        client = staff("view_deadletter", "discard_deadletter")
        assert self.NEEDED in messages(decide(client, "discard", letter, why="decided"))
        assert columns_of(letter)["state"] == "parked"
        right = Permission.objects.get(codename="request_refund")
        User.objects.get(username="staff").user_permissions.add(right)
        decide(client, "discard", letter, why="decided")
        assert columns_of(letter)["state"] == "discarded"

    def test_what_may_not_be_is_refused_before_anything_is_confirmed(self) -> None:
        client = staff("view_deadletter", "replay_deadletter")
        money, seats = self.refund_letter(), a_parked_event("evt-seats")
        asked = choose(client, "replay", money, seats)
        assert self.NEEDED in messages(asked)
        assert asked.context["records"] == [seats]
        alone = choose(client, "replay", money)
        assert self.NEEDED in messages(alone)
        assert "records" not in alone.context  # the list, and no confirmation

    def test_of_a_whole_list_they_are_left_out(self) -> None:
        client = staff("view_deadletter", "discard_deadletter")
        lost = self.unroutable_letter(events.cancelled(1, "BK-1", event_id="lost"))
        money, seats = self.refund_letter(), a_parked_event("evt-seats")
        whole = {"select_across": "1"}
        asked = choose(client, "discard", seats, **whole)
        assert "2 of them are not discarded" in messages(asked)
        assert f"without what goes to {REFUNDS}" in text(asked)
        confirm(client, asked, why="decided")
        job = BulkJob.objects.get()
        assert job.total == 1
        leases.take_up(BulkJob.objects.all(), bulk.attempt)
        assert [columns_of(each)["state"] for each in (lost, money, seats)] == [
            "parked", "parked", "discarded",
        ]  # fmt: skip
        alone = choose(client, "discard", money, **whole)
        assert "2 of them are not discarded" in messages(alone)
        assert BulkJob.objects.count() == 1
