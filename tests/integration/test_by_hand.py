"""A consumer's task called by a developer: in a shell, in a test, and through a worker."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from celery import current_app

from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from booking_platform.messaging.rules import Consumer, EventRefused
from catalog.models import Tour
from catalog.tasks import booking_created
from tests.events import body, created
from tests.platform import Platform, parked, processed
from tests.subjects import SUBJECTS, Subject

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def subject(consumer: Consumer) -> Subject:
    return SUBJECTS[consumer.queue]()


@pytest.fixture
def task(consumer: Consumer) -> Any:
    return current_app.tasks[consumer.task]


FORMS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a dict": dict,
    "a text": json.dumps,
    "bytes": body,
    "a bytearray": lambda event: bytearray(body(event)),
}


class TestInThisProcess:
    """The laws of a call by hand hold for every consumer."""

    @pytest.mark.parametrize("form", FORMS)
    def test_it_applies_an_event_and_returns_the_outcome(
        self, consumer: Consumer, subject: Subject, task: Any, form: str
    ) -> None:
        event = FORMS[form](subject.event())
        assert task(event) in consumer.outcomes
        assert task(event) == "duplicate"
        assert subject.effects() == 1

    def test_it_applies_several_in_their_order(
        self, consumer: Consumer, subject: Subject, task: Any
    ) -> None:
        first, second = subject.event("A"), subject.event("B")
        one, other, again = task([first, body(second), first])
        assert {one, other} <= consumer.outcomes.keys()
        assert again == "duplicate"
        assert task([]) == []

    def test_what_is_wrong_names_field_and_value(self, subject: Subject, task: Any) -> None:
        event = subject.event()
        event["payload"]["tourId"] = "seven"
        with pytest.raises(EventRefused, match=r"tourId.*'seven'|seven"):
            task(event)
        assert ProcessedEvent.objects.count() == DeadLetter.objects.count() == 0

    def test_what_the_rule_refuses_has_no_effect_and_is_not_parked(
        self, subject: Subject, task: Any
    ) -> None:
        with pytest.raises(EventRefused, match=subject.refusal):
            task(subject.refused())
        assert ProcessedEvent.objects.filter(event_id=subject.refused()["eventId"]).count() == 0
        assert DeadLetter.objects.count() == 0

    @pytest.mark.parametrize("nothing", [None, 7, 1.5, "", b"", "hello", {}, True], ids=repr)
    def test_what_is_no_event_is_refused(self, task: Any, nothing: Any) -> None:
        with pytest.raises(EventRefused):
            task(nothing)

    def test_what_json_does_not_know_is_named(self, subject: Subject, task: Any) -> None:
        with pytest.raises(TypeError, match=r"holds .*a complex"):
            task(subject.event() | {"odd": 1j})

    def test_python_values_are_taken(self, tour: Tour) -> None:
        event = created(tour.pk, "B") | {"timestamp": datetime.now(UTC), "odd": Decimal("1.50")}
        assert booking_created(event) == "reserved"

    def test_apply_raises_here_too(self, task: Any) -> None:
        with pytest.raises(EventRefused):
            task.apply(args=({},), throw=True)


class TestThroughAWorker:
    def test_it_is_applied_or_parked_once(self, platform: Platform, tour: Tour) -> None:
        worker = platform.start("-c", "1", "-Q", "catalog")
        booking_created.delay(created(tour.pk, "A"))
        booking_created.delay(json.dumps(created(tour.pk, "B")))
        booking_created.delay([body(created(tour.pk, "C")), created(tour.pk, "D")])
        booking_created.delay(created(tour.pk, "bad", seats="two", event_id="bad"))
        booking_created.delay(7)
        platform.wait_for_processed(4)
        platform.wait_for(lambda: len(parked()) == 2, "what is wrong is parked")
        assert parked() == [("invalid", "bad"), ("malformed", "")]
        assert worker.process.poll() is None

    def test_nothing_that_comes_as_a_task_message_is_done_again_without_end(
        self, platform: Platform, tour: Tour
    ) -> None:
        worker = platform.start("-c", "1")
        send = current_app.send_task
        for name in ("catalog.booking_created", "messaging.record_dead_letters"):
            send(name, args=[], queue="catalog")
            send(name, args=[1, 2, 3], queue="catalog")
            send(name, args=[[[{}, {}]]], queue="catalog")
            send(name, kwargs={"deliveries": [["e30=", {}]]}, queue="catalog")
            send(name, args=[created(tour.pk, "late")], expires=-5, queue="catalog")
        send("no.such.task", queue="catalog")
        booking_created.delay(created(tour.pk, "the last"))
        platform.wait_for_processed(1)
        settled = worker.log.count("\n")
        booking_created.delay(created(tour.pk, "the very last"))
        platform.wait_for_processed(2)
        assert worker.log.count("\n") < settled + 5
        with platform.channel() as channel:
            assert channel.queue_declare("catalog", passive=True).message_count == 0
        assert processed() == 2
