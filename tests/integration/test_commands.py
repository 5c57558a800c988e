"""What developers type, and what the web process shows."""

import json
import re
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from signal import SIGINT

import pytest
from amqp.exceptions import NotFound, ResourceLocked
from django.core.management import CommandError, call_command
from django.test import Client

from booking_platform.contract.announcing import EventParked, announced
from booking_platform.development.processes import PythonProcess
from booking_platform.messaging import inbox
from booking_platform.messaging.rules import CONSUMERS
from booking_platform.operations.watching import watch
from tests.events import body, created, deliveries
from tests.factories import TourFactory
from tests.platform import Platform
from tests.servers import PATIENCE

CREATED, CANCELLED = "tour-catalog.booking-created", "tour-catalog.booking-cancelled"
CHANGED = "tour-catalog.booking-changed"
NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


def publish(*arguments: str) -> str:
    output = StringIO()
    call_command("publish_event", *arguments, stdout=output)
    return output.getvalue()


def taken(platform: Platform, queue: str) -> list[bytes]:
    """Take all messages from a queue; they have no headers of ours and are persistent."""
    bodies = []
    with platform.channel() as channel:
        while message := channel.basic_get(queue):
            properties = message.properties
            assert set(properties.get("application_headers", ())) <= {"x-delivery-count"}
            assert properties["delivery_mode"] == 2
            raw = message.body
            bodies.append(raw if isinstance(raw, bytes) else raw.encode())
            channel.basic_ack(message.delivery_tag)
    return bodies


class TestPublishEvent:
    def test_it_publishes_plain_json(self, platform: Platform) -> None:
        said = publish("booking.created", "--tour", "42", "--seats", "2", "--booking", "BK-1")
        assert said == "1 event published to booking.created.\n"
        [raw] = taken(platform, CREATED)
        event = json.loads(raw)
        assert event["eventType"] == "BookingCreated"
        assert event["payload"] == {"bookingId": "BK-1", "tourId": 42, "seatsBooked": 2}

    def test_a_count_gives_each_event_an_id_and_a_booking(self, platform: Platform) -> None:
        publish("booking.created", "--tour", "42", "--booking", "BK", "--count", "3")
        events = [json.loads(raw) for raw in taken(platform, CREATED)]
        assert len({event["eventId"] for event in events}) == 3
        assert [event["payload"]["bookingId"] for event in events] == ["BK-1", "BK-2", "BK-3"]

    def test_with_an_event_id_a_count_repeats_the_event(self, platform: Platform) -> None:
        publish("booking.created", "--tour", "1", "--event-id", "same", "--count", "5")
        assert len(set(taken(platform, CREATED))) == 1

    def test_an_amount_keeps_its_digits(self, platform: Platform) -> None:
        options = ("--tour", "1", "--booking", "B", "--amount", "150.10", "--payment", "pi_1")
        publish("booking.cancelled", *options)
        [raw] = taken(platform, CANCELLED)
        assert b'"amount":150.10' in raw

    def test_a_cancellation_names_its_step(self, platform: Platform) -> None:
        options = ("--tour", "1", "--booking", "B", "--seats", "2")
        publish("booking.cancelled", *options, "--remaining", "0", "--revision", "7")
        publish("booking.cancelled", *options)
        named, unnamed = (json.loads(raw)["payload"] for raw in taken(platform, CANCELLED))
        assert named == unnamed | {"seatsRemaining": 0, "revision": 7}
        assert unnamed == {"bookingId": "B", "tourId": 1, "seatsReleased": 2}

    def test_a_change_says_how_many_seats_there_are_now(self, platform: Platform) -> None:
        options = ("--tour", "1", "--booking", "B", "--seats", "5", "--revision", "2")
        publish("booking.changed", *options)
        [raw] = taken(platform, CHANGED)
        event = json.loads(raw)
        assert event["eventType"] == "BookingChanged"
        assert event["payload"] == {"bookingId": "B", "tourId": 1, "seats": 5, "revision": 2}

    def test_it_publishes_the_lines_of_a_file_as_they_are(
        self, platform: Platform, tmp_path: Path
    ) -> None:
        file = tmp_path / "events.jsonl"
        file.write_bytes(b'{"a": 1}\n\nnot json \xff\n')
        assert "2 events" in publish("booking.created", "--file", str(file), "--as-it-is")
        assert taken(platform, CREATED) == [b'{"a": 1}', b"not json \xff"]

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            (("booking.created",), "--tour is missing"),
            (("booking.cancelled", "--tour", "1"), "--booking is missing"),
            (("booking.changed", "--tour", "1", "--revision", "2"), "--booking is missing"),
            (("booking.changed", "--tour", "1", "--booking", "B"), "--revision is missing"),
            (("booking.created", "--tour", "1", "--count", "0"), "--count is 0"),
            (("booking.created", "--file", "/no/such/file"), "No such file"),
            (("booking.cancelled", "--tour", "1", "--amount", "x"), "is no number"),
            (("booking.moved",), "invalid choice"),
        ],
    )
    def test_it_names_what_is_wrong(self, arguments: tuple[str, ...], problem: str) -> None:
        with pytest.raises(CommandError, match=problem):
            publish(*arguments)

    def test_what_would_be_refused_is_not_published(self, platform: Platform) -> None:
        with pytest.raises(CommandError) as refused:
            publish("booking.created", "--tour", "1", "--seats", "0", "--count", "2")

        assert str(refused.value) == (
            "Nothing is published: 2 of 2 events would be refused.\n"
            "  payload.seatsBooked is 0: expected a JSON integer from 1 to 1,000,000, such as 2\n"
            "--as-it-is publishes them all the same."
        )
        assert taken(platform, CREATED) == []

        publish("booking.created", "--tour", "1", "--seats", "0", "--as-it-is")
        assert len(taken(platform, CREATED)) == 1

    def test_of_a_file_the_lines_are_named(self, platform: Platform, tmp_path: Path) -> None:
        good = created(1, "B")
        named = created(1, "BK\u200b")
        file = tmp_path / "events.jsonl"
        file.write_bytes(b"\n".join([body(good), body(named), b"not json"]))

        with pytest.raises(CommandError, match="2 of 3 events") as refused:
            publish("booking.created", "--file", str(file))

        assert '\n  line 2: payload.bookingId is "BK\\u200b": expected no' in str(refused.value)
        assert "\n  line 3: not JSON" in str(refused.value)
        assert taken(platform, CREATED) == []

    def test_a_field_that_only_some_read_must_be_in_order_too(self, platform: Platform) -> None:
        options = ("--tour", "1", "--booking", "B", "--currency", "euro")
        with pytest.raises(
            CommandError, match=r'payload\.currency is "euro": expected three letters'
        ):
            publish("booking.cancelled", *options)

    def test_many_refusals_are_cut(self, platform: Platform, tmp_path: Path) -> None:
        file = tmp_path / "events.jsonl"
        file.write_bytes(b"no\n" * 50)
        with pytest.raises(CommandError) as refused:
            publish("booking.created", "--file", str(file))
        assert "line 10:" in str(refused.value)
        assert "line 11:" not in str(refused.value)


class TestWatching:
    def test_it_shows_what_became_of_the_event(self, platform: Platform) -> None:
        tour = TourFactory.create(capacity=3)
        platform.start()
        command = ("manage.py", "publish_event", "booking.created", "--tour", str(tour.pk))
        options = ("--booking", "BK-1", "--seats", "2", "--watch", "300")
        log = platform.folder / "publish.log"
        process = PythonProcess(*command, *options, log_file=log, env=platform.environment)
        process.start()
        try:
            platform.wait_for(lambda: "seats.reserved " in process.log, "the outcome is shown")
            platform.wait_for(lambda: "(tour.availability" in process.log, "and the tour's numbers")
            process.process.send_signal(SIGINT)
            assert process.process.wait(PATIENCE) == 0
        finally:
            process.kill()
        assert re.search(
            rf"^seats\.reserved +SeatsReserved: bookingId BK-1, tourId {tour.pk}, seats 2, seatsHeld 2",
            process.log,
            re.MULTILINE,
        )
        assert "1 about what was published here, " in process.log

    def test_nothing_is_left_of_it(self, platform: Platform) -> None:
        with watch() as watched:
            name = watched._queue.name
            assert is_bound(platform, name)
        assert not is_bound(platform, name)

    def test_what_is_no_announcement_is_not_shown(self, platform: Platform) -> None:
        told = announced(
            EventParked(queue="q", reason="invalid", caused_by="e-1"), cause="c", at=NOON
        )
        with watch() as watched:
            for each in (b"not json", b"[]", b'{"eventType": 1, "payload": {}}', told.body):
                platform.publish([each], key=told.routing_key)
            heard = next(watched.heard(60))
        assert (heard.routing_key, heard.event_type) == ("event.parked", "EventParked")
        assert heard.speaks_of({"e-1"}, set())
        assert not heard.speaks_of({"e-2"}, {"B"})


def is_bound(platform: Platform, queue: str) -> bool:
    with platform.channel() as channel:
        if hasattr(channel, "get_table"):  # the embedded broker
            return any(queue in each for each in channel.get_table("booking-events"))
        try:
            channel.queue_declare(queue, passive=True)
        except ResourceLocked:  # it is there, and exclusive
            return True
        except NotFound:
            return False
        return True


class TestRenewQueues:
    def test_where_all_is_as_it_must_be_it_does_nothing(self, platform: Platform) -> None:
        output = StringIO()
        call_command("renew_queues", stdout=output)
        assert output.getvalue() == "0 queues made anew; the others are as they must be.\n"


@pytest.mark.django_db(transaction=True)
class TestMetrics:
    def test_the_web_process_shows_what_the_workers_counted(self, client: Client) -> None:
        event = created(TourFactory.create().pk, "B")
        inbox.process(CONSUMERS[CREATED], deliveries(event, event))
        page = client.get("/metrics").content.decode()
        assert 'duplicate_events_total{event_type="BookingCreated"}' in page
        assert f'events_total{{consumer="{CREATED}",outcome="reserved"}}' in page
