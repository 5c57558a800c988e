"""An event is called poison only where it is proved that its worker dies of it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext

from booking_platform import servers
from booking_platform.messaging import dead_letters, inbox, suspects
from booking_platform.messaging.arrivals import read
from booking_platform.messaging.groups import Delivery
from booking_platform.messaging.models import DeadLetter, Suspect
from booking_platform.messaging.rules import CONSUMERS
from booking_platform.messaging.suspects import Trial
from booking_platform.messaging.tasks import record_dead_letters
from catalog.models import Tour
from tests.events import body, created
from tests.platform import Platform, assert_adds_up, parked, processed
from tests.servers import control_broker

CREATED = "tour-catalog.booking-created"


class Died(BaseException):
    """Stands in for the end of a process."""


def die(*_: Any, **__: Any) -> Any:
    raise Died


@pytest.mark.django_db(transaction=True)
class TestTrials:
    def deliver(self, event: bytes, **over: Any) -> None:
        inbox.process(CONSUMERS[CREATED], [Delivery(event, redelivered=True, **over)])

    def die_of(self, event: bytes, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(inbox, "read", die)
            for _ in range(times):
                with pytest.raises(Died):
                    self.deliver(event)

    def test_what_is_begun_too_often_without_an_end_is_poison(
        self, tour: Tour, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.EVENT_DELIVERY_LIMIT = 3
        event = body(created(tour.pk, "B", event_id="deadly"))
        self.die_of(event, monkeypatch, times=3)
        self.deliver(event)
        assert parked() == [("poison", "deadly")]
        letter = DeadLetter.objects.get()
        assert "begun 3 times" in letter.detail
        self.deliver(event)  # with a neighbour that died before the acknowledgement
        letter.refresh_from_db()
        assert (letter.attempts, processed()) == (2, 0)
        monkeypatch.setattr(dead_letters, "way_back", lambda *_: lambda *_, headers: None)
        dead_letters.replay(letter, by="somebody")
        assert Suspect.objects.count() == 0
        self.deliver(event)
        assert processed() == 1

    def test_one_time_less_is_none(
        self, tour: Tour, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.EVENT_DELIVERY_LIMIT = 3
        event = body(created(tour.pk, "B"))
        self.die_of(event, monkeypatch, times=2)
        self.deliver(event)
        assert (parked(), processed()) == ([], 1)
        assert Suspect.objects.count() == 0

    def test_a_first_delivery_leaves_no_mark(
        self, tour: Tour, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(suspects.Trial, "begin", die)
        inbox.process(CONSUMERS[CREATED], [Delivery(body(created(tour.pk, "B")))])
        assert processed() == 1

    def test_a_beginning_that_had_to_wait_is_taken_back(self, tour: Tour) -> None:
        trial = Trial(CREATED, [Delivery(b"{}", redelivered=True)])
        for _ in range(20):
            trial.begin()
            trial.withdraw()
        assert Suspect.objects.count() == 0

    def test_one_that_begins_twice_has_begun_once(self, tour: Tour) -> None:
        trial = Trial(CREATED, [Delivery(b"{}", redelivered=True)])
        for _ in range(20):
            trial.begin()
        assert Suspect.objects.count() == 1

    def test_two_that_are_alive_are_no_deaths(self, settings: Any) -> None:
        """The broker lost the connection of the first, which goes on waiting in place."""
        settings.EVENT_DELIVERY_LIMIT = 3
        delivery = Delivery(b"{}", redelivered=True)
        first, second = Trial(CREATED, [delivery]), Trial(CREATED, [delivery])
        for _ in range(20):
            first.begin()
            second.begin()
            assert not second.begun_too_often()
            first.withdraw()
            second.withdraw()
        assert Suspect.objects.count() == 0

    def test_the_recorder_takes_its_beginning_back_too(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        marks: list[int] = []

        def busy(_parkings: Any) -> None:
            marks.append(Suspect.objects.count())
            if len(marks) == 1:
                raise OperationalError from psycopg.errors.LockNotAvailable()

        monkeypatch.setattr(dead_letters, "park", busy)
        monkeypatch.setattr(time, "sleep", lambda _: marks.append(Suspect.objects.count()))
        record_dead_letters([Delivery(b"?", redelivered=True)])
        assert set(marks) == {0}

    def test_of_a_group_that_died_each_is_begun_alone(
        self, tour: Tour, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.EVENT_DELIVERY_LIMIT = 3

        def deadly(consumer: Any, delivery: Delivery, now: datetime) -> Any:
            if b"deadly" in delivery.body:
                raise Died
            return read(consumer, delivery, now)

        monkeypatch.setattr(inbox, "read", deadly)
        events = [created(tour.pk, f"B{n}") for n in range(5)]
        events.insert(2, created(tour.pk, "D", event_id="deadly"))
        group = [Delivery(body(event), redelivered=True) for event in events]
        for _ in range(3):
            with pytest.raises(Died):
                inbox.process(CONSUMERS[CREATED], group)
        inbox.process(CONSUMERS[CREATED], group)
        assert parked() == [("poison", "deadly")]
        assert processed() == 5
        assert len(Suspect.objects.values("fingerprint").distinct()) == 1  # until it is replayed

    def test_a_group_that_lives_costs_one_commit_more(self, tour: Tour) -> None:
        group = [Delivery(body(created(tour.pk, f"B{n}")), redelivered=True) for n in range(100)]
        with CaptureQueriesContext(connection) as queries:
            inbox.process(CONSUMERS[CREATED], group)
        assert processed() == 100
        assert len([q for q in queries if "INSERT INTO suspects" not in q["sql"]]) < 25


@contextmanager
def locked_tours() -> Iterator[None]:
    """Hold a lock that every event has to wait for."""
    database = connection.settings_dict
    parameters = {"host": database["HOST"], "port": database["PORT"], "user": database["USER"],
                  "dbname": database["NAME"]}  # fmt: skip
    with psycopg.connect(**parameters) as locking:
        locking.execute("LOCK TABLE tours")
        yield


@pytest.mark.servers
class TestKilledWhileItWaits:
    """Delivery counts rise with every restart, and prove nothing."""

    def test_events_that_waited_for_a_lock_come_back_unharmed(
        self, platform: Platform, tour: Tour
    ) -> None:
        platform.publish([created(tour.pk, f"B{n}") for n in range(30)])
        with locked_tours():
            for _ in range(7):
                worker = platform.start("-c", "2", "-Q", "catalog", EVENT_DELIVERY_LIMIT="5")
                platform.wait_for(self.waits(worker.log_file), "it waits for the lock")
                worker.kill()
        platform.start("-c", "2", "-Q", "catalog")
        platform.wait_for_processed(30)
        assert parked() == []
        assert_adds_up(tour)

    def test_an_event_that_comes_again_while_it_waits_is_not_blamed(
        self, platform: Platform, tour: Tour
    ) -> None:
        """A lost connection ends no process: the group waits on, beside what the broker redelivers."""
        worker = platform.start("-c", "6", "-Q", "catalog", EVENT_DELIVERY_LIMIT="3")
        vhost = servers.broker_url().rsplit("/", 1)[1] or "/"
        with locked_tours():
            platform.publish([created(tour.pk, "B")])
            for lost in range(1, 5):
                platform.wait_for(self.waits(worker.log_file), "it waits for the lock")
                control_broker("close_all_connections", "-p", vhost, "a test")
                connected = lambda lost=lost: worker.log.count("Connected to") > lost  # noqa: E731
                platform.wait_for(connected, "it is connected again")
        platform.wait_for_processed(1)
        assert parked() == []
        assert_adds_up(tour)

    @staticmethod
    def waits(log: Path | None) -> Any:
        assert log is not None
        return lambda: "waiting in place" in log.read_text()
