"""Dead letters that a person corrects: checked, sent once in effect, the original kept."""

import json
import os
import signal
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from booking_platform.messaging import broker, dead_letters, edits, inbox, retention
from booking_platform.messaging.dead_letters import NotReplayable
from booking_platform.messaging.edits import InvalidEdit
from booking_platform.messaging.groups import Delivery
from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from booking_platform.messaging.rules import CONSUMERS
from booking_platform.messaging.tasks import record_unroutable
from catalog.models import Reservation
from tests.events import body, cancelled, created, deliveries
from tests.factories import TourFactory
from tests.platform import Platform
from tests.servers import free_port

pytestmark = pytest.mark.django_db(transaction=True)

CREATED, CANCELLED = "tour-catalog.booking-created", "tour-catalog.booking-cancelled"
REFUNDS = "payment-gateway.booking-cancelled"
NO_TOUR = 999_999


def park(event: dict[str, Any] | bytes, queue: str = CREATED) -> DeadLetter:
    inbox.process(CONSUMERS[queue], deliveries(event))
    return DeadLetter.objects.latest("pk")


def to_tour(letter: DeadLetter, tour: int) -> str:
    """Return what a person types who corrects the tour."""
    return edits.draft(letter).replace(f'"tourId": {NO_TOUR}', f'"tourId": {tour}')


def taken(platform: Platform, queue: str = CREATED) -> list[Delivery]:
    """Take what is in a queue, as a worker is told of it."""
    found = []
    with platform.channel() as channel:
        while message := channel.basic_get(queue, no_ack=True):
            found.append(Delivery.of(message, most_bytes=10**6, kept_bytes=100))
    return found


class TestTheDraft:
    def test_it_is_indented_and_its_numbers_are_as_they_came(self) -> None:
        letter = park(b'{"amount":150.00,"far":1e400,"odd":"\\u202e","same":1,"same":2}')
        text = edits.draft(letter)
        assert text.splitlines()[:2] == ["{", '  "amount": 150.00,']
        assert "1e400" in text

    @pytest.mark.parametrize(
        ("came", "shown"),
        [
            (b"no json", "no json"),
            (b"", ""),
            (b"latin-1: \xe9", "latin-1: \ufffd"),
            (b"\xef\xbb\xbf{}", "{}"),
            ('{"id":"a\u200bb\U000e0001"}'.encode(), r'"a\u200bb\udb40\udc01"'),
            (b"\0\x1b", r"\u0000\u001b"),
        ],
    )
    def test_whatever_came_is_a_text_to_begin_with(self, came: bytes, shown: str) -> None:
        assert shown in edits.draft(park(came))

    @pytest.mark.parametrize("size", [edits.LARGEST, edits.LARGEST + 1])
    def test_one_that_is_too_large_for_a_form_is_refused(self, size: int, settings: Any) -> None:
        settings.EVENT_MAX_BYTES = 2**24
        letter = park(b'"' + b"x" * (size - 2) + b'"')
        if size == edits.LARGEST:
            assert len(edits.draft(letter)) == size
            return
        with pytest.raises(NotReplayable, match=r"262,145 bytes: at most 262,144 can be edited"):
            edits.draft(letter)

    def test_one_that_was_cut_is_refused(self) -> None:
        letter = DeadLetter.objects.create(queue=CREATED, body=b"{", size=10**7, reason="too_large")
        with pytest.raises(NotReplayable, match="only its beginning is kept"):
            edits.draft(letter)


class TestWhatIsTyped:
    def test_all_that_is_wrong_is_named_at_once(self) -> None:
        letter = park(cancelled(1, "BK-1"), CANCELLED)
        event = cancelled(1, "BK-1", -1, amount="80,00", currency="euro", timestamp=17)
        with pytest.raises(InvalidEdit) as refused:
            edits.examine(letter, body(event).decode())
        said = "\n".join(refused.value.problems)
        assert "timestamp is 17: expected a string in ISO 8601" in said
        assert "payload.seatsReleased is -1: expected a JSON integer from 1" in said
        assert "currency" not in said  # the seats' consumer does not read it

    def test_the_refunds_read_more(self) -> None:
        letter = park(cancelled(1, "BK-1", paymentId="pi_1", amount=1, currency="euro"), REFUNDS)
        with pytest.raises(
            InvalidEdit, match=r'payload\.currency is "euro": expected three letters'
        ):
            edits.examine(letter, edits.draft(letter))

    def test_an_address_is_not_repeated(self) -> None:
        letter = park(b"junk", "notification.booking-cancelled")
        event = cancelled(1, "BK-1", userEmail=["ann@example.com"])
        with pytest.raises(InvalidEdit) as refused:
            edits.examine(letter, body(event).decode())
        assert "payload.userEmail" in str(refused.value)
        assert "ann" not in str(refused.value)

    @pytest.mark.parametrize(
        "typed", ["", "null", "[]", "{", '{"a":' + "[" * 100_000, "\ud800", "\0", '"' * 300_000]
    )
    def test_what_is_no_event_is_refused_in_words(self, typed: str) -> None:
        letter = park(b"junk")
        with pytest.raises(InvalidEdit) as refused:
            edits.examine(letter, typed)
        assert all(refused.value.problems)

    def test_the_same_content_has_the_same_id_whatever_its_formatting(self) -> None:
        letter, other = park(created(NO_TOUR, "BK-1")), park(created(NO_TOUR, "BK-1"))
        text = to_tour(letter, 1)
        edit = edits.examine(letter, text)
        assert edit.event_id not in (letter.event_id, "")
        compact = json.dumps(json.loads(text) | {"eventId": "another"})
        again = edits.examine(letter, compact.replace("\n", "\r\n"))
        assert again.event_id == edit.event_id
        assert edits.examine(letter, to_tour(letter, 2)).event_id != edit.event_id
        same_text = edits.draft(other).replace(other.event_id, letter.event_id)
        assert edits.examine(other, same_text).event_id != edit.event_id

    def test_it_says_what_was_changed_numbers_by_value(self) -> None:
        event = cancelled(NO_TOUR, "BK-1", amount=80.5, paymentId="pi_1")
        letter = park(event, CANCELLED)
        text = to_tour(letter, 5).replace("80.5", "80.50").replace('"pi_1"', '"pi_2"')
        edit = edits.examine(letter, text)
        assert [tuple(each) for each in edit.changed] == [
            ("payload.tourId", str(NO_TOUR), "5"),
            ("payload.paymentId", '"pi_1"', '"pi_2"'),
        ]
        assert len(edit.changes) == 3  # with the event id

    def test_true_is_not_one(self) -> None:
        event = created(NO_TOUR, "BK-1") | {"note": {"flag": True}}
        letter = park(event)
        edit = edits.examine(letter, edits.draft(letter).replace("true", "1"))
        assert [each.path for each in edit.changed] == ["note.flag"]

    def test_a_cloud_event_keeps_its_source(self) -> None:
        event = created(NO_TOUR, "BK-1")
        cloud = {
            "specversion": "1.0", "id": "7", "source": "/shop", "type": "com.example.BookingCreated",
            "time": event["timestamp"], "data": event["payload"],
        }  # fmt: skip
        letter = park(cloud)
        assert letter.event_id == "/shop#7"
        edit = edits.examine(letter, to_tour(letter, 5))
        assert edit.event_id.startswith("/shop#")
        assert edit.event_id != letter.event_id
        assert [each.path for each in edit.changed] == ["data.tourId"]

    def test_one_whose_id_gets_too_long_is_refused(self) -> None:
        event = created(NO_TOUR, "BK-1")
        cloud = {
            "specversion": "1.0", "id": "7", "source": "s" * 250, "type": "BookingCreated",
            "time": event["timestamp"], "data": event["payload"],
        }  # fmt: skip
        letter = park(cloud)
        with pytest.raises(InvalidEdit, match="which is the event id, has 287 characters"):
            edits.examine(letter, to_tour(letter, 5))

    def test_an_unroutable_one_may_get_another_type(self) -> None:
        event = created(NO_TOUR, "BK-1") | {"eventType": "BookingCraeted"}
        record_unroutable([Delivery(body(event), routing_key="booking.craeted")])
        letter = DeadLetter.objects.get()
        with pytest.raises(NotReplayable, match="no consumer takes events of the type"):
            edits.examine(letter, edits.draft(letter))
        edit = edits.examine(letter, edits.draft(letter).replace("Craeted", "Created"))
        assert [each.queue for each in edit.consumers] == [CREATED]


class TestSending:
    def test_it_goes_to_the_one_queue_and_the_original_is_kept(self, platform: Platform) -> None:
        tour = TourFactory.create(capacity=10)
        letter = park(cancelled(NO_TOUR, "BK-1"), CANCELLED)
        came = bytes(letter.body)
        edit = edits.examine(letter, to_tour(letter, tour.pk))
        assert edits.send_edited(letter, edit, by="ada", why="a misprint")
        letter.refresh_from_db()
        assert letter.state == "edited"
        assert (letter.resolved_by, letter.resolution) == ("ada", "a misprint")
        assert letter.resolved_at
        assert letter.edited_event_id == edit.event_id
        assert bytes(letter.body) == came
        assert bytes(letter.edited_body or b"") == edit.body
        assert taken(platform, REFUNDS) == taken(platform, CREATED) == []
        [delivery] = taken(platform, CANCELLED)
        inbox.process(CONSUMERS[CANCELLED], [delivery])
        assert ProcessedEvent.objects.get().event_id == edit.event_id

    def test_an_old_one_is_applied_as_a_replay_is(self, platform: Platform) -> None:
        tour = TourFactory.create(capacity=10)
        old = (timezone.now() - timedelta(days=400)).isoformat()
        letter = park(created(NO_TOUR, "BK-1", timestamp=old))
        assert letter.reason == "stale"
        edit = edits.examine(letter, to_tour(letter, tour.pk))
        edits.send_edited(letter, edit, by="ada", why="it is true")
        inbox.process(CONSUMERS[CREATED], taken(platform))
        assert Reservation.objects.get().state == "reserved"

    def test_what_is_parked_again_is_linked_both_ways(self, platform: Platform) -> None:
        letter = park(created(NO_TOUR, "BK-1"))
        edit = edits.examine(letter, to_tour(letter, NO_TOUR + 1))
        edits.send_edited(letter, edit, by="ada", why="a guess")
        letter.refresh_from_db()
        inbox.process(CONSUMERS[CREATED], taken(platform))
        again = DeadLetter.objects.get(state="parked")
        assert edits.made_of(letter) == [again]
        assert edits.origin(again) == letter
        assert (edits.origin(letter), edits.made_of(again)) == (None, [])

    def test_a_broker_that_is_away_decides_nothing(
        self, platform: Platform, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        letter = park(created(NO_TOUR, "BK-1"))
        away = f"amqp://guest:guest@127.0.0.1:{free_port()}//"
        monkeypatch.setenv("CELERY_BROKER_WRITE_URL", away)
        edit = edits.examine(letter, to_tour(letter, 5))
        with pytest.raises(broker.UNREACHABLE):
            edits.send_edited(letter, edit, by="ada", why="try")
        letter.refresh_from_db()
        assert not letter.edit_begun
        assert edits.examine(letter, to_tour(letter, 6))  # may still be another one

    def test_the_original_can_come_again_meanwhile(self, platform: Platform) -> None:
        event = created(NO_TOUR, "BK-1")
        letter = park(event)
        edit = edits.examine(letter, to_tour(letter, 5))
        park(event)
        with pytest.raises(NotReplayable, match="it came again"):
            edits.send_edited(letter, edit, by="ada", why="try")
        assert taken(platform) == []


class TestTwoPeople:
    def test_of_two_edits_one_is_sent(self, platform: Platform) -> None:
        letter = park(created(NO_TOUR, "BK-1"))
        other = DeadLetter.objects.get()
        first, second = (
            edits.examine(each, to_tour(each, n)) for each, n in ((letter, 1), (other, 2))
        )
        assert edits.send_edited(letter, first, by="ada", why="one")
        with pytest.raises(NotReplayable, match="somebody else has replayed, edited or closed it"):
            edits.send_edited(other, second, by="bob", why="two")
        [delivery] = taken(platform)
        assert json.loads(delivery.body)["eventId"] == first.event_id

    def test_a_replay_and_an_edit_exclude_each_other(self, platform: Platform) -> None:
        letter = park(created(NO_TOUR, "BK-1"))
        other = DeadLetter.objects.get()
        edit = edits.examine(letter, to_tour(letter, 1))
        dead_letters.send(other)  # and its process dies
        with pytest.raises(NotReplayable, match="somebody else has replayed"):
            edits.send_edited(letter, edit, by="ada", why="one")
        letter.refresh_from_db()
        assert "A replay of the original was begun before" in edits.doubts(letter)[0]
        assert edits.send_edited(letter, edit, by="ada", why="I know")
        with pytest.raises(NotReplayable):
            dead_letters.send(other)
        assert len(taken(platform)) == 2

    def test_what_was_edited_meanwhile_is_not_discarded(self, platform: Platform) -> None:
        letter = park(created(NO_TOUR, "BK-1"))
        other = DeadLetter.objects.get()
        edit = edits.examine(letter, to_tour(letter, 1))
        edits._begin(letter, edit, by="ada")  # and the broker takes its time
        assert not dead_letters.discard(other, by="bob", why="not needed")
        other.refresh_from_db()
        assert other.state == "parked"

    def test_the_same_edit_of_what_came_again_is_the_same_event(self, platform: Platform) -> None:
        """Without a booking id nothing else tells that the seats are taken already."""
        tour = TourFactory.create(capacity=10)
        event = created(NO_TOUR, seats=3)
        for _ in range(2):
            letter = park(event)
            edit = edits.examine(letter, to_tour(letter, tour.pk))
            assert edits.send_edited(letter, edit, by="ada", why="a misprint")
        [doubt] = edits.doubts(park(event))
        assert f"ada has edited it: it was sent as {edit.event_id}" in doubt
        inbox.process(CONSUMERS[CREATED], taken(platform))
        tour.refresh_from_db()
        assert tour.available_seats == 7

    def test_it_says_that_the_original_was_applied(self) -> None:
        tour = TourFactory.create(capacity=10)
        inbox.process(CONSUMERS[CREATED], deliveries(created(tour.pk, "BK-1", event_id="twice")))
        letter = park(created(tour.pk, "BK-2", 2, event_id="twice"))
        assert letter.reason == "conflict"
        [doubt] = edits.doubts(letter)
        assert "An event of this id was applied by tour-catalog.booking-created" in doubt
        assert edits.doubts(park(created(NO_TOUR, "BK-1"))) == []


DYING = """
import os, signal, sys
import django; django.setup()
from booking_platform.messaging import broker, edits
from booking_platform.messaging.models import DeadLetter
publish = broker.publish
def dying(*given, **named):
    if sys.argv[1] == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    publish(*given, **named)
    os.kill(os.getpid(), signal.SIGKILL)
broker.publish = dying
letter = DeadLetter.objects.get(pk=sys.argv[2])
edits.send_edited(letter, edits.examine(letter, sys.argv[3]), by="ada", why="a misprint")
"""


@pytest.mark.parametrize("when", ["before", "after"])
class TestAKill:
    def die(self, platform: Platform, letter: DeadLetter, text: str, when: str) -> None:
        dead = subprocess.run(
            [sys.executable, "-c", DYING, when, str(letter.pk), text],
            env=os.environ | platform.environment
            | {"DJANGO_SETTINGS_MODULE": "booking_platform.settings"},
            check=False, capture_output=True, timeout=60,
        )  # fmt: skip
        assert dead.returncode == -signal.SIGKILL, dead.stderr.decode()
        letter.refresh_from_db()

    def test_the_same_is_sent_again_and_has_one_effect(self, platform: Platform, when: str) -> None:
        tour = TourFactory.create(capacity=10)
        letter = park(
            created(NO_TOUR, seats=3)
        )  # no booking id: nothing but the event id tells it apart
        self.die(platform, letter, to_tour(letter, tour.pk), when)
        assert (letter.state, letter.edited_by) == ("parked", "ada")
        for refused in (edits.draft, dead_letters.send):
            with pytest.raises(NotReplayable, match="ada has edited it"):
                refused(letter)
        assert edits.send_again(letter, by="bob", why="it was not closed")
        letter.refresh_from_db()
        assert (letter.state, letter.resolved_by) == ("edited", "bob")
        sent = taken(platform)
        assert len(sent) == (2 if when == "after" else 1)
        assert {json.loads(each.body)["eventId"] for each in sent} == {letter.edited_event_id}
        assert {each.replay_of for each in sent} == {letter.replay_token}
        inbox.process(CONSUMERS[CREATED], sent)
        tour.refresh_from_db()
        assert tour.available_seats == 7
        with pytest.raises(NotReplayable, match="nothing to send again"):
            edits.send_again(letter, by="bob", why="once more")

    def test_it_is_remembered_for_as_long_as_it_may_be_sent_again(
        self, platform: Platform, when: str
    ) -> None:
        tour = TourFactory.create(capacity=10)
        letter = park(created(NO_TOUR, "BK-1"))
        self.die(platform, letter, to_tour(letter, tour.pk), when)
        long_ago = timezone.now() - timedelta(days=400)
        ProcessedEvent.objects.create(
            event_id=letter.edited_event_id or "", consumer=CREATED, processed_at=long_ago
        )
        assert retention.forget_processed_events() == 0
        edits.send_again(letter, by="bob", why="done")
        DeadLetter.objects.update(resolved_at=long_ago)
        assert retention.forget_processed_events() == 1
        retention.forget_dead_letters()
        letter.refresh_from_db()
        assert (bytes(letter.body), letter.edited_body) == (b"", None)
        assert letter.edited_event_id
