"""Dead letters: parked once, counted, replayed to their one queue, discarded; and the cleanup."""

import json
from dataclasses import replace
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from kombu.message import Message

from booking_platform.contract.announcing import ANNOUNCEMENTS
from booking_platform.messaging import (
    clock,
    dead_letters,
    inbox,
    metric_page,
    retention,
    topology,
)
from booking_platform.messaging.batches import BATCH
from booking_platform.messaging.groups import Delivery
from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from booking_platform.messaging.rules import CONSUMERS
from booking_platform.messaging.tasks import record_dead_letters, record_unroutable
from tests.events import body, cancelled, created, deliveries
from tests.factories import TourFactory
from tests.platform import Platform, parked

pytestmark = pytest.mark.django_db(transaction=True)

CREATED = "tour-catalog.booking-created"
CANCELLED = "tour-catalog.booking-cancelled"


def park_unknown_tour(tour: int = 4242, **over: str) -> DeadLetter:
    inbox.process(CONSUMERS[CANCELLED], deliveries(cancelled(tour, "B", **over)))
    return DeadLetter.objects.latest("pk")


def call(*arguments: str, **options: Any) -> str:
    output = StringIO()
    call_command(*arguments, stdout=output, stderr=output, **options)
    return output.getvalue()


class TestReplay:
    def test_it_goes_to_its_one_queue_and_is_processed(self, platform: Platform) -> None:
        letter = park_unknown_tour()
        TourFactory.create(pk=4242, capacity=10, available_seats=5)
        assert dead_letters.replay(letter, by="somebody", why="the tour is there now")
        letter.refresh_from_db()
        assert (letter.state, letter.resolved_by) == ("replayed", "somebody")
        platform.start("-c", "1", "-Q", "catalog")
        platform.wait_for_processed(1)
        with platform.channel() as channel:
            others = ("payment-gateway.booking-cancelled", "notification.booking-cancelled")
            sizes = [channel.queue_declare(name, passive=True).message_count for name in others]
        assert sizes == [0, 0]

    @pytest.mark.parametrize("odd", ["a byte order mark", "half a character", "a cloud event"])
    def test_what_came_is_replayed_whatever_it_needs_to_be_read(
        self, platform: Platform, odd: str
    ) -> None:
        event = cancelled(4242, "B", tourName="<here>")
        attributes = {
            "specversion": "1.0",
            "id": "7",
            "source": "/shop",
            "type": "BookingCancelled",
        }
        headers = {f"ce-{name}": text for name, text in attributes.items()}
        messages: dict[str, dict[str, Any]] = {
            "a byte order mark": {"body": b"\xef\xbb\xbf" + body(event)},
            "half a character": {"body": body(event).replace(b"<here>", b"\\ud83d")},
            "a cloud event": {
                "body": body(event["payload"]),
                "headers": headers | {"ce-time": event["timestamp"]},
            },
        }
        message = Message(**messages[odd])
        delivery = Delivery.of(message, most_bytes=10_000, kept_bytes=100)
        inbox.process(CONSUMERS[CANCELLED], [delivery])
        letter = DeadLetter.objects.get()
        assert letter.event_id == ("/shop#7" if odd == "a cloud event" else event["eventId"])
        TourFactory.create(pk=4242, capacity=10, available_seats=5)
        assert dead_letters.replay(letter, by="somebody")
        platform.start("-c", "1", "-Q", "catalog")
        platform.wait_for_processed(1)
        assert ProcessedEvent.objects.get().event_id == letter.event_id

    def test_what_is_parked_again_is_open_again(self, platform: Platform) -> None:
        letter = park_unknown_tour()
        dead_letters.replay(letter, by="somebody")
        platform.start("-c", "1", "-Q", "catalog")
        platform.wait_for(lambda: len(parked()) == 1, "it is parked again")
        assert DeadLetter.objects.filter(state="replayed").count() == 1

    def test_what_came_again_meanwhile_stays_open(self, platform: Platform) -> None:
        letter = park_unknown_tour(event_id="twice")
        park_unknown_tour(event_id="twice")
        assert not dead_letters.replay(letter, by="somebody")
        assert parked() == [("unknown_tour", "twice")]

    def test_a_closed_one_is_not_replayed(self, platform: Platform) -> None:
        letter = park_unknown_tour()
        assert dead_letters.discard(letter, by="somebody", why="a test")
        letter.refresh_from_db()
        with pytest.raises(dead_letters.NotReplayable, match="discarded"):
            dead_letters.replay(letter, by="somebody")

    def test_one_from_nowhere_is_not_replayed(self) -> None:
        letter = DeadLetter.objects.create(queue="elsewhere", body=b"", reason="broker")
        with pytest.raises(dead_letters.NotReplayable, match="no consumer has a queue"):
            dead_letters.replay(letter, by="somebody")


class TestCommand:
    def test_it_replays_by_reason(self, platform: Platform) -> None:
        park_unknown_tour(event_id="one")
        inbox.process(CONSUMERS[CREATED], deliveries(b"junk"))
        assert "would replay" in call(
            "replay_dead_letters", "--reason", "unknown_tour", "--dry-run"
        )
        assert "replayed" in call("replay_dead_letters", "--reason", "unknown_tour")
        assert [reason for reason, _ in parked()] == ["malformed"]

    def test_it_wants_to_know_which(self) -> None:
        with pytest.raises(CommandError, match="Say which"):
            call("replay_dead_letters")

    def test_it_discards_by_reason_and_says_why(self) -> None:
        park_unknown_tour(event_id="one")
        inbox.process(CONSUMERS[CREATED], deliveries(b"junk"))
        which = ("discard_dead_letters", "--reason", "unknown_tour", "--why", "a test")
        assert "would discard" in call(*which, "--dry-run")
        assert len(parked()) == 2
        said = call(*which, "--yes")
        assert said.index("will discard") < said.index("\ndiscarded")
        assert [reason for reason, _ in parked()] == ["malformed"]
        letter = DeadLetter.objects.get(reason="unknown_tour")
        assert (letter.state, letter.resolution) == ("discarded", "a test")
        assert letter.resolved_by

    @pytest.mark.parametrize("why", [(), ("--why", " ")], ids=["none", "blank"])
    def test_it_discards_nothing_without_a_reason(self, why: tuple[str, ...]) -> None:
        letter = park_unknown_tour()
        with pytest.raises(CommandError, match="--why"):
            call("discard_dead_letters", "--all", "--yes", *why)
        assert parked() == [("unknown_tour", letter.event_id)]

    def test_it_asks_before_it_discards(self, monkeypatch: pytest.MonkeyPatch) -> None:
        letter = park_unknown_tour()
        with pytest.raises(CommandError, match="nobody can be asked here; add --yes"):
            call("discard_dead_letters", "--all", "--why", "a test")
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        monkeypatch.setattr("builtins.input", lambda _prompt: "n")
        call("discard_dead_letters", "--all", "--why", "a test")
        assert parked() == [("unknown_tour", letter.event_id)]
        monkeypatch.setattr("builtins.input", lambda _prompt: "y")
        call("discard_dead_letters", "--all", "--why", "a test")
        assert parked() == []

    def test_what_is_closed_already_is_not_discarded(self) -> None:
        letter = park_unknown_tour()
        assert dead_letters.discard(letter, by="somebody", why="the first")
        with pytest.raises(CommandError, match="1 could not be discarded"):
            call("discard_dead_letters", str(letter.pk), "--why", "the second", "--yes")
        letter.refresh_from_db()
        assert letter.resolution == "the first"

    @pytest.mark.parametrize("command", ["replay_dead_letters", "discard_dead_letters"])
    def test_it_loads_bodies_one_by_one(self, command: str) -> None:
        park_unknown_tour()
        with CaptureQueriesContext(connection) as queries:
            call(command, "--all", "--why", "a test", "--dry-run")
        assert queries.captured_queries
        assert not [query["sql"] for query in queries if '"body"' in query["sql"]]

    def test_it_names_an_id_that_is_not_there(self) -> None:
        with pytest.raises(CommandError, match="No dead letter has the id 77"):
            call("replay_dead_letters", "77")


class TestBroker:
    def test_what_the_broker_gave_up_on_is_recorded_once(self) -> None:
        event = body(created(1, "B", event_id="given up"))
        dead = Delivery(event, routing_key=CREATED, died_of="delivery_limit")
        record_dead_letters([dead, dead])
        letter = DeadLetter.objects.get()
        assert (letter.queue, letter.reason, letter.attempts) == (CREATED, "broker", 2)
        assert letter.event_id == "given up"

    def test_it_is_read_as_its_consumer_reads_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One letter, whether the consumer parked it or the broker."""
        seats = replace(CONSUMERS[CANCELLED], uses=("seats_remaining", "revision"))
        monkeypatch.setitem(CONSUMERS, CANCELLED, seats)
        event = body(cancelled(4242, "B", currency="euro", amount="80,00"))
        inbox.process(seats, deliveries(event))
        record_dead_letters([Delivery(event, routing_key=CANCELLED, died_of="delivery_limit")])
        letter = DeadLetter.objects.get()
        assert (letter.attempts, letter.reason) == (2, "broker")

    def test_a_queue_that_was_declared_before_names_itself_in_the_death(self) -> None:
        event = body(created(1, "B"))
        record_dead_letters([Delivery(event, routing_key="booking.created", died_in=CREATED)])
        assert DeadLetter.objects.get().queue == CREATED

    def test_what_ends_whoever_records_it_is_parked_for_the_consumer_of_its_partition(self) -> None:
        died_in = topology.partition_name("catalog", 0)
        dead = Delivery(b"{", routing_key="booking.created", died_in=died_in)
        elsewhere = dead._replace(died_in="another")
        assert dead_letters.unread("dead", dead, clock.now()).queue == CREATED
        assert dead_letters.unread("dead", elsewhere, clock.now()).queue == "dead"

    @pytest.mark.parametrize("died_in", ["\ud800\0", "", "x" * 255], ids=ascii)
    def test_headers_that_mean_nothing_do_no_harm(self, died_in: str) -> None:
        record_dead_letters([Delivery(b"\xff\0", died_in=died_in, died_of=died_in)])
        assert [reason for reason, _ in parked()] == ["broker"]

    @pytest.mark.parametrize("given", [[], {}, [{}], ["x"], None, b"x"], ids=repr)
    def test_nothing_is_taken_by_hand(self, given: Any) -> None:
        with pytest.raises(TypeError, match="nothing by hand"):
            record_dead_letters(given)
        assert DeadLetter.objects.count() == 0

    def test_a_queue_that_anybody_may_name_does_not_become_a_label(self) -> None:
        """Each value of a label is kept in memory, and shown, for ever."""
        for number in range(3):
            given_up = Delivery(b"?", died_in=f"made-up-{number}", died_of="rejected")
            record_dead_letters([given_up])
        page = metric_page.page(settings.METRICS_DIR).decode()
        assert 'dead_letters_parked_total{queue="none of ours",reason="broker"}' in page
        assert "made-up" not in page


class TestUnroutable:
    def record(self, event: bytes, key: str = "booking.craeted") -> DeadLetter:
        record_unroutable([Delivery(event, routing_key=key)])
        return DeadLetter.objects.get()

    def test_it_is_recorded_with_its_routing_key(self) -> None:
        letter = self.record(body(created(1, "B", event_id="lost")))
        assert (letter.reason, letter.event_id, letter.event_type) == (
            "unroutable", "lost", "BookingCreated"
        )  # fmt: skip
        assert letter.detail == "no consumer has the routing key 'booking.craeted'"

    def test_an_announcement_is_none(self) -> None:
        """Where the broker's user may not bind their keys, those that nobody takes come here."""
        record_unroutable(
            [
                Delivery(
                    b'{"eventId": "e", "eventType": "%b"}' % each.__name__.encode(), routing_key=key
                )
                for key, each in ANNOUNCEMENTS.items()
            ]
        )
        assert not DeadLetter.objects.exists()

    @pytest.mark.parametrize("key", ["seats.reserved", "seats"])
    def test_an_event_under_the_key_of_an_announcement_is_one(self, key: str) -> None:
        letter = self.record(body(created(1, "B", event_id="lost")), key)
        assert (letter.event_id, letter.event_type) == ("lost", "BookingCreated")

    def test_it_is_one_letter_whatever_its_formatting(self) -> None:
        event = created(1, "B", event_id="lost")
        cloud = {"specversion": "1.0", "id": "lost", "source": "/shop", "type": "BookingCreated"}
        for text in (json.dumps(event), json.dumps(event, indent=1), json.dumps(cloud)):
            record_unroutable([Delivery(text.encode(), routing_key="booking.craeted")])
        letters = DeadLetter.objects.order_by("pk").values_list(
            "event_id", "event_type", "attempts"
        )
        assert list(letters) == [("lost", "BookingCreated", 2), ("/shop#lost", "BookingCreated", 1)]

    def test_its_replay_goes_to_the_consumers_of_its_type(self, platform: Platform) -> None:
        tour = TourFactory.create(capacity=10)
        letter = self.record(body(created(tour.pk, "B", event_id="lost")))
        assert dead_letters.replay(letter, by="somebody")
        platform.start("-c", "1", "-Q", "catalog")
        platform.wait_for_processed(1)

    def test_one_of_no_known_type_is_not_replayed(self) -> None:
        letter = self.record(b"?", key="\ud800")
        with pytest.raises(dead_letters.NotReplayable, match="no consumer takes events"):
            dead_letters.replay(letter, by="somebody")


class TestCleanup:
    def make(self, event_id: str, **ago: timedelta) -> None:
        times = {name: timezone.now() - age for name, age in ago.items()}
        ProcessedEvent.objects.create(event_id=event_id, consumer=CREATED, **times)

    def test_it_deletes_what_outlived_the_retention(self, settings: Any) -> None:
        settings.PROCESSED_EVENTS_RETENTION = timedelta(days=30)
        self.make("old", processed_at=timedelta(days=31), occurred_at=timedelta(days=31))
        self.make("old, time unknown", processed_at=timedelta(days=31))
        self.make("young", processed_at=timedelta(days=29), occurred_at=timedelta(days=29))
        self.make("stamped ahead", processed_at=timedelta(days=31), occurred_at=timedelta(days=30))
        assert retention.forget_processed_events() == 2
        left = ProcessedEvent.objects.values_list("event_id", flat=True)
        assert sorted(left) == ["stamped ahead", "young"]

    def test_what_a_dead_letter_may_be_replayed_for_is_remembered(self) -> None:
        self.make("open", processed_at=timedelta(days=40))
        self.make("just replayed", processed_at=timedelta(days=40))
        self.make("replayed long ago", processed_at=timedelta(days=40))
        for event_id, days in (("open", None), ("just replayed", 1), ("replayed long ago", 9)):
            resolved = {} if days is None else {"state": "replayed"}
            DeadLetter.objects.create(
                queue=CREATED,
                event_id=event_id,
                body=b"",
                reason="unknown_tour",
                resolved_at=None if days is None else timezone.now() - timedelta(days=days),
                **resolved,
            )
        assert retention.forget_processed_events() == 1
        assert ProcessedEvent.objects.filter(event_id="replayed long ago").count() == 0

    def test_it_goes_in_batches(self, settings: Any) -> None:
        old = timezone.now() - timedelta(days=40)
        ProcessedEvent.objects.bulk_create(
            ProcessedEvent(event_id=str(n), consumer=CREATED, processed_at=old)
            for n in range(2 * BATCH + 1)
        )
        assert retention.forget_processed_events() == 2 * BATCH + 1

    def test_a_repeat_of_what_is_forgotten_is_stale(self, settings: Any) -> None:
        tour = TourFactory.create()
        settings.PROCESSED_EVENTS_RETENTION = timedelta(days=30)
        event = created(tour.pk, timestamp=(timezone.now() - timedelta(days=29)).isoformat())
        inbox.process(CONSUMERS[CREATED], deliveries(event))
        settings.PROCESSED_EVENTS_RETENTION = timedelta(days=20)
        ProcessedEvent.objects.update(processed_at=timezone.now() - timedelta(days=21))
        assert retention.forget_processed_events() == 1
        inbox.process(CONSUMERS[CREATED], deliveries(event))
        assert [reason for reason, _ in parked()] == ["stale"]
