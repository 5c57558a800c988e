"""Dead letters in the admin: groups, editing, and many at once in the background."""

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from celery import current_app
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from booking_platform.messaging import (
    broker,
    clock,
    dead_letters,
    edits,
    heartbeats,
    leases,
    topology,
)
from booking_platform.messaging.models import DeadLetter
from booking_platform.operations import bulk
from booking_platform.operations.letter_groups import groups
from booking_platform.operations.models import BulkJob
from tests import events
from tests.factories import TourFactory
from tests.integration.admin_pages import (
    CANCELLED,
    CREATED,
    NO_TOUR,
    REFUNDS,
    a_parked_event,
    choose,
    confirm,
    kept,
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

GROUPS = "/admin/messaging/deadletter/groups/"
WHY = "the partner misspelt it"


def edit_page(letter: DeadLetter) -> str:
    return reverse("admin:messaging_deadletter_edit", args=[letter.pk])


@pytest.fixture
def channel() -> Any:
    with current_app.connection_for_write() as opened:
        broker.declare(opened)
        its: Any = opened.channel()
        for queue in (CREATED, CANCELLED, REFUNDS, topology.MAINTENANCE):
            its.queue_purge(queue)
        yield its


def sent(channel: Any, queue: str = CREATED) -> list[dict[str, Any]]:
    found = []
    while message := channel.basic_get(queue, no_ack=True):
        found.append(json.loads(message.body))
    return found


class TestGroups:
    def test_they_are_counted_by_reason_queue_and_type(self, admin_client: Client) -> None:
        for _ in range(3):
            a_parked_event()
        parked(events.cancelled(NO_TOUR, "BK-1"), CANCELLED)
        parked(b"junk")
        closed = a_parked_event()
        dead_letters.discard(closed, by="ada", why="a test")
        found = {(each.reason.code, each.queue, each.event_type): each.letters for each in groups()}
        assert found == {
            ("unknown_tour", CREATED, "BookingCreated"): 3,
            ("unknown_tour", CANCELLED, "BookingCancelled"): 1,
            ("malformed", CREATED, "other"): 1,
        }
        shown = text(admin_client.get(GROUPS))
        assert "names a tour that does not exist" in shown
        for link in re.findall(r'href="(/admin/messaging/deadletter/\?[^"]+)"', shown):
            assert admin_client.get(link).context["cl"].result_count in (1, 3)
        assert "another type, or none" in shown

    def test_strangers_make_no_groups(self, admin_client: Client) -> None:
        DeadLetter.objects.bulk_create(
            DeadLetter(
                queue=f"<b>{n}", event_type=f"<script>{n}", fingerprint=str(n), body=b"", reason="broker",
                parked_at=timezone.now() - timedelta(days=n),
            )
            for n in range(50)
        )  # fmt: skip
        [group] = groups()
        assert (group.queue, group.event_type, group.letters) == ("other", "other", 50)
        assert timezone.now() - group.oldest > timedelta(days=48)
        response = admin_client.get(GROUPS)
        assert b"<script>1" not in response.content
        shown = admin_client.get(f"{listing(DeadLetter)}?{group.query}")
        assert shown.context["cl"].result_count == 50

    def test_it_costs_as_many_queries_whatever_there_is(self, admin_client: Client) -> None:
        counts = []
        for many in (0, 1, 10):
            for _ in range(many):
                a_parked_event()
            with CaptureQueriesContext(connection) as queries:
                text(admin_client.get(GROUPS))
            counts.append(len(queries))
        assert len(set(counts)) == 1
        assert "No dead letter waits" not in text(admin_client.get(GROUPS))

    def test_a_group_is_replayed_as_a_whole(self, admin_client: Client, channel: Any) -> None:
        for _ in range(3):
            a_parked_event()
        parked(b"junk")
        shown = text(admin_client.get(GROUPS))
        [target] = re.findall(
            r'action="(/admin/messaging/deadletter/\?reason=unknown_tour[^"]*)"', shown
        )
        pressed = {"action": "replay", "_selected_action": "0", "select_across": "1"}
        asked = admin_client.post(target, pressed)
        assert "Replay 3 dead letters" in text(asked)
        assert "done in the background" in text(asked)
        confirm_at(admin_client, target, asked, why="the tour is there")
        job = BulkJob.objects.get()
        assert (job.total, job.why, job.made_by) == (3, "the tour is there", "admin")
        assert job.selection == {
            "reason": "unknown_tour", "queue": CREATED, "event_type": "BookingCreated"
        }  # fmt: skip

    def test_who_may_only_look_is_offered_nothing(self) -> None:
        a_parked_event()
        shown = text(staff("view_deadletter").get(GROUPS))
        assert 'name="action"' not in shown
        User.objects.all().delete()
        assert staff("view_tour").get(GROUPS).status_code == 403


def confirm_at(client: Client, target: str, asked: Any, **answers: str) -> Any:
    """Fill in a confirmation, and send it to the address of the list."""
    [form] = re.findall(r'<form method="post">.*?</form>', asked.content.decode(), re.DOTALL)
    hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form)
    return client.post(target, dict(hidden) | answers, follow=True)


class TestEditing:
    def fill(self, client: Client, letter: DeadLetter, old: str, new: str, **more: str) -> Any:
        shown = client.get(edit_page(letter))
        typed = shown.context["form"]["text"].value().replace(old, new)
        return client.post(edit_page(letter), {"text": typed, "why": WHY, **more}, follow=True)

    def test_a_misspelt_currency_is_mended(self, admin_client: Client, channel: Any) -> None:
        event = events.cancelled(
            1, "BK-1", paymentId="pi_1", amount=80.5, currency="euro", userEmail="ann@example.com"
        )
        letter = parked(event, REFUNDS)
        buttons = text(admin_client.get(page(letter)))
        assert 'value="edit"' in buttons
        led = choose(admin_client, "edit", letter)
        assert led.redirect_chain[0][0] == edit_page(letter)
        asked = self.fill(admin_client, letter, '"euro"', '"eur"', check="1")
        assert sent(channel, REFUNDS) == []
        assert asked.context["changed"] == [("payload.currency", '"euro"', '"eur"')]
        assert "Send it" in text(asked)
        done = self.fill(admin_client, letter, '"euro"', '"eur"', send="1")
        [mended] = sent(channel, REFUNDS)
        assert mended["payload"] == event["payload"] | {"currency": "eur"}
        assert mended["eventId"] != event["eventId"]
        letter.refresh_from_db()
        assert (letter.state, letter.resolved_by, letter.resolution) == ("edited", "admin", WHY)
        assert mended["eventId"] in messages(done)
        [(by, said)] = kept(letter)
        assert by == "admin"
        assert said == f"replayed, edited, as {mended['eventId']}; changed: payload.currency. {WHY}"
        assert "ann@" not in said
        shown = text(admin_client.get(page(letter)))
        assert mended["eventId"] in shown
        assert '<strong>payload.currency</strong>: <del>"euro"</del> → <ins>"eur"</ins>' in shown

    def test_all_that_is_wrong_is_said_and_what_was_typed_stays(
        self, admin_client: Client, channel: Any
    ) -> None:
        letter = a_parked_event()
        typed = json.dumps(events.created(0, "BK-1", "two") | {"note": "</textarea><script>x"})
        asked = admin_client.post(edit_page(letter), {"text": typed, "why": WHY, "send": "1"})
        shown = text(asked)
        assert "payload.tourId is 0: expected a JSON integer from 1" in shown
        assert 'payload.seatsBooked is "two": expected a JSON integer from 1' in shown
        assert asked.context["form"]["text"].value() == typed
        assert b"</textarea><script>" not in asked.content
        assert sent(channel) == []
        assert not LogEntry.objects.exists()

    @pytest.mark.parametrize(
        "typed", ["{", "[]", "\x1b[2J", "\u202e{}", '{"eventId":', "{" * 50_000, "x" * 300_000]
    )
    def test_whatever_is_typed_is_answered(
        self, admin_client: Client, channel: Any, typed: str
    ) -> None:
        letter = a_parked_event()
        asked = admin_client.post(edit_page(letter), {"text": typed, "why": WHY, "send": "1"})
        assert "It was not sent, and nothing is lost" in text(asked)
        assert sent(channel) == []

    @pytest.mark.parametrize("missing", ["text", "why"])
    def test_a_text_and_a_reason_are_needed(self, admin_client: Client, missing: str) -> None:
        letter = a_parked_event()
        data = {"text": "{}", "why": WHY, "send": "1", missing: " "}
        assert "This field is required" in text(admin_client.post(edit_page(letter), data)) or (
            missing == "text"  # spaces are a text, and no event
        )
        assert DeadLetter.objects.get().state == "parked"

    def test_a_body_of_a_stranger_is_only_text(self, admin_client: Client) -> None:
        letter = parked(b'</textarea><script>alert(1)</script> \0 \xff {"a": 1}')
        response = admin_client.get(edit_page(letter))
        assert b"<script>alert" not in response.content
        assert b"\0" not in response.content

    def test_what_can_t_be_edited_says_why(self, admin_client: Client) -> None:
        large = DeadLetter.objects.create(
            queue=CREATED, body=b"x" * (edits.LARGEST + 1), reason="too_large", fingerprint="f"
        )
        answer = admin_client.get(edit_page(large), follow=True)
        assert "262,145 bytes: at most 262,144 can be edited" in messages(answer)
        foreign = DeadLetter.objects.create(queue="elsewhere", body=b"{}", reason="broker")
        answer = admin_client.post(edit_page(foreign), {"text": "{}", "why": WHY, "send": "1"})
        assert "no consumer has a queue of that name" in text(answer)
        assert admin_client.get(edit_page(foreign).replace(str(foreign.pk), "x")).status_code == 302

    def test_a_second_effect_has_to_be_meant(self, admin_client: Client, channel: Any) -> None:
        tour = TourFactory.create(capacity=10)
        settle(CREATED, events.created(tour.pk, "BK-1", event_id="twice"))
        letter = parked(events.created(tour.pk, "BK-2", event_id="twice"))
        asked = self.fill(admin_client, letter, "BK-2", "BK-3", send="1")
        assert "An event of this id was applied by" in text(asked)
        assert "Say that you know it" in text(asked)
        assert sent(channel) == []
        told = {"sure": "on", "doubts": asked.context["told"]}
        self.fill(admin_client, letter, "BK-2", "BK-3", send="1", **told)
        assert [each["payload"]["bookingId"] for each in sent(channel)] == ["BK-3"]

    def test_who_is_sure_has_been_told_of_just_that(
        self, admin_client: Client, channel: Any
    ) -> None:
        letter = a_parked_event()
        asked = self.fill(admin_client, letter, "{\n", "{\n\n", check="1")
        told = {"sure": "on", "doubts": asked.context["told"]}
        DeadLetter.objects.filter(pk=letter.pk).update(replay_token="of a replay that has begun")
        again = self.fill(admin_client, letter, "{\n", "{\n\n", send="1", **told)
        assert "A replay of the original was begun before" in text(again)
        assert sent(channel) == []

    def test_to_change_nothing_has_to_be_meant(self, admin_client: Client, channel: Any) -> None:
        letter = a_parked_event()
        asked = self.fill(admin_client, letter, "{\n", "{\n\n", send="1")
        assert "Nothing is changed but the event id" in text(asked)
        assert sent(channel) == []

    def test_a_broker_that_is_away_loses_nothing(
        self, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        letter = a_parked_event()
        away = f"amqp://guest:guest@127.0.0.1:{free_port()}//"
        monkeypatch.setenv("CELERY_BROKER_WRITE_URL", away)
        asked = self.fill(admin_client, letter, str(NO_TOUR), "5", send="1")
        assert "The broker did not take it" in text(asked)
        assert '"tourId": 5' in asked.context["form"]["text"].value()
        letter.refresh_from_db()
        assert (letter.state, letter.edit_begun) == ("parked", False)

    def test_two_people_at_once(self, admin_client: Client, channel: Any) -> None:
        letter = a_parked_event()
        typed = edits.draft(letter).replace(str(NO_TOUR), "5")
        dead_letters.discard(letter, by="bob", why="mine")
        answer = admin_client.post(edit_page(letter), {"text": typed, "why": WHY, "send": "1"})
        assert "is discarded" in text(answer)
        assert answer.context["form"]["text"].value() == typed
        assert sent(channel) == []

    def test_one_that_was_begun_is_sent_again_as_it_is(
        self, admin_client: Client, channel: Any
    ) -> None:
        letter = a_parked_event()
        edit = edits.examine(letter, edits.draft(letter).replace(str(NO_TOUR), "5"))
        edits._begin(letter, edit, by="bob")  # and its process is killed
        shown = text(admin_client.get(page(letter)))
        assert 'value="edit"' not in shown
        assert 'value="replay"' not in shown
        assert "it may have been sent" in shown
        refused = admin_client.get(edit_page(letter), follow=True)
        assert "bob has edited it" in messages(refused)
        answer = choose(admin_client, "send_again", letter, confirmed="1", why="it was not closed")
        assert "1 dead letter sent again" in messages(answer)
        assert [each["eventId"] for each in sent(channel)] == [edit.event_id]
        letter.refresh_from_db()
        assert (letter.state, letter.resolved_by) == ("edited", "admin")

    def test_the_letters_of_one_event_lead_to_each_other(
        self, admin_client: Client, channel: Any
    ) -> None:
        event = events.cancelled(NO_TOUR, "BK-1")
        letter, other = parked(event, CANCELLED), parked(events.body(event)[:-1], REFUNDS)
        edit = edits.examine(letter, edits.draft(letter).replace(str(NO_TOUR), "5"))
        edits.send_edited(letter, edit, by="ada", why=WHY)
        again = parked(edit.body, CANCELLED)
        for one, another in ((letter, again), (again, letter), (letter, other), (other, letter)):
            assert f'href="{page(another)}"' in text(admin_client.get(page(one)))


class TestWhoMayEdit:
    def post(self, client: Client, letter: DeadLetter) -> Any:
        typed = edits.draft(letter).replace(f'"tourId": {NO_TOUR}', '"tourId": 5')
        typed = typed.replace('"euro"', '"eur"')
        return client.post(edit_page(letter), {"text": typed, "why": WHY, "send": "1"}, follow=True)

    def test_it_is_a_right_of_its_own(self, channel: Any) -> None:
        letter = a_parked_event()
        client = staff("view_deadletter", "replay_deadletter", "discard_deadletter")
        assert client.get(edit_page(letter)).status_code == 403
        assert self.post(client, letter).status_code == 403
        user = User.objects.get()
        user.user_permissions.add(Permission.objects.get(codename="edit_deadletter"))
        self.post(client, letter)
        assert len(sent(channel)) == 1

    def test_the_queue_of_the_refunds_needs_its_own_right_too(self, channel: Any) -> None:
        letter = parked(
            events.cancelled(1, "BK-1", paymentId="p", amount=1, currency="euro"), REFUNDS
        )
        client = staff("view_deadletter", "edit_deadletter")
        needed = "you need the permission payments.request_refund"
        assert needed in messages(client.get(edit_page(letter), follow=True))
        assert needed in text(self.post(client, letter))
        assert sent(channel, REFUNDS) == []
        user = User.objects.get()
        user.user_permissions.add(Permission.objects.get(codename="request_refund"))
        self.post(client, letter)
        assert len(sent(channel, REFUNDS)) == 1

    def test_what_was_begun_needs_it_to_be_sent_again(self, channel: Any) -> None:
        letter = parked(
            events.cancelled(1, "BK-1", paymentId="p", amount=1, currency="euro"), REFUNDS
        )
        edit = edits.examine(letter, edits.draft(letter).replace('"euro"', '"eur"'))
        edits._begin(letter, edit, by="bob")
        client = staff("view_deadletter", "edit_deadletter")
        shown = client.get(page(letter))
        assert shown.context["decisions"] == []
        assert "You may not: Send what was made of again" in text(shown)
        answer = choose(client, "send_again", letter, confirmed="1", why="x")
        assert "you need the permission payments.request_refund" in messages(answer)
        assert sent(channel, REFUNDS) == []


class TestJobs:
    def make(self, client: Client, count: int = 25, **more: Any) -> BulkJob:
        letters = [a_parked_event() for _ in range(count)]
        asked = choose(client, "discard", *letters)
        assert "done in the background" in text(asked)
        confirm(client, asked, why="a test of the partner", **more)
        return BulkJob.objects.latest("pk")

    def test_those_that_are_chosen_are_done_in_the_background(
        self, admin_client: Client, channel: Any
    ) -> None:
        other = a_parked_event()
        job = self.make(admin_client)
        assert DeadLetter.objects.filter(state="parked").count() == 26
        assert channel.queue_declare(topology.MAINTENANCE, passive=True).message_count == 1
        leases.take_up(BulkJob.objects.all(), bulk.attempt)
        assert DeadLetter.objects.get(state="parked") == other
        shown = text(admin_client.get(page(job)))
        assert "25 of 25" in shown
        assert "data-running" not in shown

    def test_all_of_a_search_but_nothing_that_comes_after_it_was_shown(
        self, admin_client: Client, channel: Any
    ) -> None:
        for n in range(3):
            a_parked_event(f"evt-{n}")
        target = f"{listing(DeadLetter)}?q=evt-&reason=unknown_tour"
        pressed = {"action": "replay", "_selected_action": "1", "select_across": "1", "index": "0"}
        asked = admin_client.post(target, pressed)
        a_parked_event("evt-later")
        confirm_at(admin_client, target, asked)
        job = BulkJob.objects.get()
        assert (job.total, job.selection) == (3, {"reason": "unknown_tour", "words": "evt-"})

    @pytest.mark.parametrize("query", ["attempts__gt=0", "state=discarded", "event_id__exact=x"])
    def test_what_it_can_t_repeat_it_refuses(self, admin_client: Client, query: str) -> None:
        dead_letters.discard(a_parked_event("x"), by="ada", why="a test")
        a_parked_event("y")
        pressed = {"action": "discard", "_selected_action": "0", "select_across": "1", "index": "0"}
        answer = admin_client.post(f"{listing(DeadLetter)}?{query}", pressed, follow=True)
        assert "All of a list can't be discarded where" in messages(answer)
        assert not BulkJob.objects.exists()

    def test_a_broker_that_is_away_leaves_it_to_the_sweep(
        self, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        away = f"amqp://guest:guest@127.0.0.1:{free_port()}//"
        monkeypatch.setenv("CELERY_BROKER_WRITE_URL", away)
        job = self.make(admin_client)
        assert leases.due(BulkJob.objects.all(), clock.now()).get() == job

    def test_its_page_says_what_it_waits_for(self, admin_client: Client, channel: Any) -> None:
        job = self.make(admin_client)
        assert "waits for a worker that serves 'maintenance': none was ever seen" in text(
            admin_client.get(page(job))
        )
        heartbeats.store(topology.MAINTENANCE, "w1")
        assert "due now: the next sweep takes it" in text(admin_client.get(page(job)))
        BulkJob.objects.update(lease_until=clock.now() + timedelta(minutes=1))
        shown = text(admin_client.get(page(job)))
        assert "under way" in shown
        assert "data-running" in shown

    def test_it_is_stopped_by_whoever_made_it_or_may_do_the_same(
        self, admin_client: Client, channel: Any
    ) -> None:
        job = self.make(admin_client)
        reader = staff("view_deadletter")
        assert "you may not discard dead letters" in messages(choose(reader, "stop", job))
        User.objects.get(username="staff").user_permissions.add(
            Permission.objects.get(codename="discard_deadletter")
        )
        assert "1 bulk job stopped" in messages(choose(reader, "stop", job))
        assert "stopped by staff" in text(admin_client.get(page(job)))
        assert 'value="stop"' not in text(admin_client.get(page(job)))

    def test_failures_lead_to_their_letters_and_hide_nothing(
        self, admin_client: Client, channel: Any
    ) -> None:
        evil = "<script>alert(1)</script>"
        letter = DeadLetter.objects.create(
            queue="elsewhere", event_id=evil, fingerprint="f", body=b"", reason="broker"
        )
        target = listing(DeadLetter)
        pressed = {"action": "replay", "_selected_action": "0", "select_across": "1", "index": "0"}
        confirm_at(admin_client, target, admin_client.post(target, pressed))
        leases.take_up(BulkJob.objects.all(), bulk.attempt)
        response = admin_client.get(page(BulkJob.objects.get()))
        assert b"<script>alert" not in response.content
        assert f'href="{page(letter)}"' in text(response)
        assert "no consumer has a queue of that name" in text(response)

    def test_whoever_sees_no_dead_letters_sees_no_jobs(self, admin_client: Client) -> None:
        a_parked_event()
        assert staff("view_tour").get(listing(BulkJob)).status_code == 403


def test_a_number_out_of_bounds_is_asked_for_again(admin_client: Client) -> None:
    a_parked_event()
    chosen = {"action": "discard", "select_across": "1", "_selected_action": "0"}
    given = chosen | {"confirmed": "yes", "why": "x", "newest": str(-(10**30))}
    answer = admin_client.post(reverse("admin:messaging_deadletter_changelist"), given)
    assert answer.status_code == 200
    assert not BulkJob.objects.exists()


@pytest.mark.parametrize("query", ["s=x&page=x", "s=x&page=99", "s=x"])
def test_there_is_no_search_of_the_theme(admin_client: Client, query: str) -> None:
    """It would put what is typed into an address, and so into the logs of whoever stands before."""
    assert admin_client.get(f"/admin/search/?{query}").status_code == 404
    assert b"/admin/search/" not in admin_client.get(reverse("admin:index")).content
