"""The outbox: what is stored with a fact is published after it, in order, and marked once confirmed."""

import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from kombu.exceptions import OperationalError as BrokerAway

from booking_platform.contract.announcements import TourAvailabilityChanged
from booking_platform.contract.announcing import Announced, announced
from booking_platform.development.listener import Listener, listening
from booking_platform.messaging import (
    broker,
    clock,
    dead_letters,
    inbox,
    outbox,
    relaying,
    topology,
)
from booking_platform.messaging.groups import Delivery
from booking_platform.messaging.models import DeadLetter, OutboxRow
from booking_platform.messaging.outbox import BrokerRefused
from booking_platform.messaging.publishing import Outgoing, Publisher
from booking_platform.messaging.rules import CONSUMERS, Refused
from booking_platform.messaging.tasks import record_dead_letters
from catalog.models import Tour
from catalog.tasks import booking_cancelled, booking_created
from tests.events import cancelled, created, deliveries
from tests.factories import TourFactory
from tests.platform import parked
from tests.threads import at_once

pytestmark = pytest.mark.django_db(transaction=True)

CREATED = "tour-catalog.booking-created"


def number(n: int, tour: int = 1) -> Announced:
    payload = TourAvailabilityChanged(
        tour_id=tour, capacity=9, available=9, reserved=0, unledgered=0, overbooked=0, version=n
    )
    return announced(payload, cause=f"{tour}-{n}", at=clock.now())


def store(*numbers: int) -> None:
    """Store announcements, each in a transaction of its own."""
    for n in numbers:
        outbox.store([number(n)])


def waiting() -> list[int]:
    texts = OutboxRow.waiting().order_by("pk").values_list("messages", flat=True)
    return [
        int(message.body.partition(b'"version":')[2].partition(b"}")[0])
        for text in texts
        for message in outbox._read(text)
    ]


class Recorder(Publisher):
    """Publishes nowhere, and remembers what; ``takes`` says how many of each go it confirms."""

    def __init__(self, takes: int | None = None) -> None:
        super().__init__()
        self.took: list[bytes] = []
        self._takes = takes

    def open(self) -> None:
        """Connect to nobody."""

    def publish(self, messages: Sequence[Outgoing]) -> int:
        taken = messages[: self._takes]
        self.took += [message.body for message in taken]
        return len(taken)


class Away(Publisher):
    def open(self) -> None:
        raise BrokerAway("it is away")


@pytest.fixture
def heard() -> Iterator[Listener]:
    with listening(broker.connection_to_publish) as listener:
        yield listener


class TestStoring:
    def test_it_is_undone_with_the_fact(self) -> None:
        with transaction.atomic():
            store(1)
            transaction.set_rollback(True)
        assert waiting() == []

    def test_a_group_is_one_row(self, tour: Tour) -> None:
        inbox.process(
            CONSUMERS[CREATED], deliveries(*[created(tour.pk, f"B{n}") for n in range(9)])
        )
        before = OutboxRow.objects.get(announcements=1)  # the new tour
        group = OutboxRow.objects.exclude(pk=before.pk).get()
        assert group.announcements == 9 + 1

    def test_a_repeat_stores_nothing(self, tour: Tour) -> None:
        event = created(tour.pk, "B")
        booking_created(event)
        stored = OutboxRow.objects.count()
        assert booking_created(event) == "duplicate"
        assert booking_created(created(tour.pk, "B")) == "unchanged"
        assert OutboxRow.objects.count() == stored

    def test_the_same_cause_makes_the_same_event(self) -> None:
        assert number(1).body[:50] == number(1).body[:50]
        assert number(1).body[:50] != number(2).body[:50]


class TestRelaying:
    def test_what_is_confirmed_is_marked_and_not_published_again(self) -> None:
        store(1, 2, 3)
        recorder = Recorder()
        assert relaying.drain(recorder) == 3
        assert waiting() == []
        assert relaying.drain(recorder) == 0
        assert [b'"version":%d}' % n in body for n, body in enumerate(recorder.took, 1)] == [
            True
        ] * 3

    def test_nothing_is_marked_while_the_broker_is_away(self) -> None:
        store(1, 2)
        with pytest.raises(BrokerAway):
            relaying.drain(Away())
        assert waiting() == [1, 2]

    def test_what_comes_before_a_refused_one_is_marked(self) -> None:
        store(1, 2, 3)
        with pytest.raises(BrokerRefused, match="refused an announcement"):
            relaying.drain(Recorder(takes=2))
        assert waiting() == [3]

    def test_a_row_is_marked_only_as_a_whole(self) -> None:
        outbox.store([number(1), number(2), number(3)])
        with pytest.raises(BrokerRefused):
            relaying.drain(Recorder(takes=2))
        assert waiting() == [1, 2, 3]

    def test_one_go_is_bounded_and_begins_with_the_oldest(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(outbox, "BYTES_AT_ONCE", 2 * len(number(1).body))
        store(*range(9))
        recorder = Recorder()
        assert 1 <= (outbox.relay(recorder) or 0) < 9
        relaying.drain(recorder)
        assert [b'"version":%d}' % n in body for n, body in enumerate(recorder.took)] == [True] * 9

    def test_several_relays_publish_each_once(self) -> None:
        store(*range(300))
        recorders = [Recorder() for _ in range(4)]
        at_once(*[lambda each=each: relaying.drain(each) for each in recorders])
        assert len([body for each in recorders for body in each.took]) == 300
        assert waiting() == []

    @pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer")
    def test_one_leaves_the_work_to_another_that_is_at_it(self) -> None:
        store(1)
        entered, leave = threading.Event(), threading.Event()

        class Slow(Recorder):
            def publish(self, messages: Sequence[Outgoing]) -> int:
                entered.set()
                assert leave.wait(60)
                return super().publish(messages)

        slow = Slow()

        def second() -> None:
            assert entered.wait(60)
            assert outbox.relay(Recorder()) is None
            leave.set()

        at_once(lambda: relaying.drain(slow), second)
        assert len(slow.took) == 1

    def test_the_command_says_what_it_did(self, heard: Listener) -> None:
        store(1, 2)
        out = StringIO()
        call_command("relay_outbox", stdout=out)
        assert out.getvalue() == "2 announcements published; none waits\n"
        assert [each["version"] for each in heard.of("TourAvailabilityChanged")] == [1, 2]
        assert heard.keys == ["tour.availability-changed"] * 2

    def test_the_command_fails_where_the_broker_is_away(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store(1)
        monkeypatch.setattr(relaying, "Publisher", Away)
        with pytest.raises(CommandError, match="1 announcement waits: it is away"):
            call_command("relay_outbox")

    def test_what_nobody_listens_to_is_published_and_no_dead_letter(self) -> None:
        with broker.producer():
            pass  # declares everything
        store(1)
        assert relaying.relay_now() == 1
        with broker.connection_to_publish() as opened, opened.channel() as channel:
            queue = topology.unroutable_queue()(channel)
            assert queue.get() is None


class TestTheBacklog:
    def test_it_is_counted_with_its_age(self) -> None:
        assert outbox.backlog() == (0, 0.0)
        outbox.store([number(1), number(2)])
        OutboxRow.objects.update(created_at=clock.now() - timedelta(seconds=60))
        store(3)
        announcements, age = outbox.backlog()
        assert announcements == 3
        assert 60 <= age < 120

    def test_the_cleanup_removes_what_was_published_a_day_ago(self) -> None:
        store(1, 2, 3)
        old = clock.now() - timedelta(days=2)
        [first, second, _] = OutboxRow.objects.order_by("pk")
        OutboxRow.objects.filter(pk=first.pk).update(created_at=old, published_at=old)
        OutboxRow.objects.filter(pk=second.pk).update(created_at=old)
        assert outbox.forget_published() == 1
        assert waiting() == [2, 3]


class TestStaff:
    def test_a_tour_with_another_capacity_is_announced(self, heard: Listener) -> None:
        tour = TourFactory.create(capacity=10, available_seats=10)
        booking_created(created(tour.pk, "B", 8))
        tour.capacity = 5
        tour.save()
        relaying.relay_now()
        first, second, third = heard.of("TourAvailabilityChanged")
        assert (first["capacity"], first["available"]) == (10, 10)
        assert second["available"] == 2
        assert (third["capacity"], third["available"], third["overbooked"]) == (5, 0, 3)
        assert first["version"] < second["version"] < third["version"]

    def test_a_discarded_dead_letter_is_announced(self, heard: Listener) -> None:
        inbox.process(CONSUMERS[CREATED], deliveries(created(404, "B", event_id="e")))
        dead_letters.discard(DeadLetter.objects.get(), by="me", why="a secret of ours")
        relaying.relay_now()
        [parking], [discarded] = heard.of("EventParked"), heard.of("EventDiscarded")
        assert parking == {
            "queue": CREATED,
            "causedBy": "e",
            "eventType": "BookingCreated",
            "reason": "unknown_tour",
            "detail": "payload.tourId is 404: there is no such tour",
        }
        assert discarded == {name: parking[name] for name in parking if name != "detail"}


class TestParked:
    def test_one_that_comes_again_while_it_waits_is_no_news(self, heard: Listener) -> None:
        for _ in range(3):
            inbox.process(CONSUMERS[CREATED], deliveries(created(404, "B", event_id="e")))
        relaying.relay_now()
        assert len(heard.of("EventParked")) == 1

    def test_one_that_is_parked_after_it_was_discarded_is(self, heard: Listener) -> None:
        event = created(404, "B", event_id="e")
        for _ in range(2):
            inbox.process(CONSUMERS[CREATED], deliveries(event))
            dead_letters.discard(DeadLetter.objects.get(state="parked"), by="me", why="not ours")
        relaying.relay_now()
        assert len(heard.of("EventParked")) == 2
        assert len(heard.of("EventDiscarded")) == 2

    def test_it_tells_no_address(self, heard: Listener) -> None:
        event = cancelled(1, "B", 1, seatsRemaining="someone@example.com", event_id="e")
        bodies: list[Any] = [b"{", b'"someone@example.com"', b"\xff", event]
        inbox.process(CONSUMERS["tour-catalog.booking-cancelled"], deliveries(*bodies))
        relaying.relay_now()
        assert len(heard.of("EventParked")) == 4
        assert "example.com" not in str(heard.heard)

    def test_what_a_producer_writes_elsewhere_is_no_address_either(self, heard: Listener) -> None:
        """The name of a type, and that of a queue, which a header claims to have died in."""
        body = b'{"eventId": "e", "eventType": "someone@example.com"}'
        record_dead_letters([Delivery(body, died_in="someone@example.com", died_of="rejected")])
        dead_letters.discard(DeadLetter.objects.get(), by="me", why="not ours")
        relaying.relay_now()
        assert (len(heard.of("EventParked")), len(heard.of("EventDiscarded"))) == (1, 1)
        assert "example.com" not in str(heard.heard)

    def test_a_bug_of_ours_is_not_told_in_detail(
        self, heard: Listener, tour: Tour, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def bug(*_: object, **__: object) -> Any:
            raise KeyError("internals")

        monkeypatch.setattr("catalog.ledger.apply", bug)
        inbox.process(CONSUMERS[CREATED], deliveries(created(tour.pk, "B")))
        relaying.relay_now()
        assert [reason for reason, _ in parked()] == ["bug"]
        assert "internals" not in str(heard.hear())

    def test_an_unheard_refusal_is_not_announced_without_end(self) -> None:
        """A consumer of EventParked whose event is parked would be told of it again, and again."""
        stored = OutboxRow.objects.count()
        parking = dead_letters.Parking(
            "somebody.event-parked",
            deliveries(b'{"eventId": "e", "eventType": "EventParked"}')[0],
            None,
            Refused(dead_letters.POISON, "begun too often"),
        )
        with transaction.atomic():
            assert dead_letters.park([parking]) == []
        assert OutboxRow.objects.count() == stored


class TestCancelledBeforeCreated:
    def test_each_is_answered(self, heard: Listener, tour: Tour) -> None:
        late, early = created(tour.pk, "B", 2), cancelled(tour.pk, "B", 2)
        booking_cancelled(early)
        booking_created(late)
        relaying.relay_now()
        first, second = heard.of("SeatsReleased")
        assert (first["causedBy"], first["seats"], first["reason"]) == (
            early["eventId"],
            0,
            "not_created_yet",
        )
        assert (second["causedBy"], second["seats"], second["reason"]) == (
            late["eventId"],
            0,
            "cancelled_before",
        )
