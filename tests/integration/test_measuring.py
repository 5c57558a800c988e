"""What a worker measures of its work: how late events are, groups, attempts, and what it waits for."""

import threading
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from celery import shared_task
from django.db import OperationalError
from prometheus_client import REGISTRY

from booking_platform.development.stripe_sandbox import Sandbox
from booking_platform.messaging import clock, inbox, outages, relaying
from booking_platform.messaging.groups import Delivery
from booking_platform.messaging.outbox import BrokerRefused
from booking_platform.messaging.rules import CONSUMERS, Applied
from catalog.models import Tour
from tests.events import body, created
from tests.integration import refunds
from tests.integration.admin_pages import CREATED

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]


class Growth:
    """By how much samples have grown since they were looked at first."""

    def __init__(self, name: str, **labels: str) -> None:
        self._name, self._labels = name, labels
        self._begun = {part: self._now(part) for part in ("", "_count", "_sum")}

    def _now(self, part: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(self._name + part, self._labels | labels) or 0.0

    def __call__(self, part: str = "") -> float:
        return self._now(part) - self._begun[part]


def at(moment: datetime, tour: Tour, booking: str, **delivery: Any) -> Delivery:
    """Return a booking that was made at a moment, by the clock of its producer."""
    event = created(tour.pk, booking)
    event["timestamp"] = moment.isoformat()
    return Delivery(body(event), **delivery)


class TestHowLateEventsAre:
    @pytest.fixture
    def late(self) -> Growth:
        return Growth("event_latency_seconds", consumer=CREATED)

    def test_each_event_that_is_applied_counts(self, tour: Tour, late: Growth) -> None:
        now = clock.now()
        ages = (5, 10, 20)
        group = [at(now - timedelta(seconds=age), tour, f"B{age}") for age in ages]
        inbox.process(CONSUMERS[CREATED], group)
        assert late("_count") == 3
        assert 35 <= late("_sum") < 95

    def test_a_clock_that_is_ahead_counts_as_none(self, tour: Tour, late: Growth) -> None:
        inbox.process(CONSUMERS[CREATED], [at(clock.now() + timedelta(minutes=3), tour, "A")])
        assert (late("_count"), late("_sum")) == (1, 0)

    def test_what_has_waited_for_a_person_does_not_count(self, tour: Tour, late: Growth) -> None:
        inbox.process(CONSUMERS[CREATED], [at(clock.now(), tour, "A", replay_of="token")])
        assert late("_count") == 0

    def test_a_duplicate_and_what_is_parked_do_not_count(self, tour: Tour, late: Growth) -> None:
        twice = at(clock.now(), tour, "A")
        inbox.process(CONSUMERS[CREATED], [twice, twice, Delivery(b"nonsense")])
        assert late("_count") == 1


class TestGroups:
    def test_size_and_duration_are_measured(self, tour: Tour) -> None:
        size = Growth("event_group_size", consumer=CREATED)
        took = Growth("event_group_duration_seconds", consumer=CREATED)
        inbox.process(CONSUMERS[CREATED], [at(clock.now(), tour, name) for name in "ABC"])
        assert (size("_count"), size("_sum")) == (1, 3)
        assert took("_count") == 1
        assert 0 < took("_sum") < 60

    def test_what_follows_the_commit_is_in_the_duration(self, tour: Tour) -> None:
        took = Growth("event_group_duration_seconds", consumer=CREATED)
        late = Growth("event_latency_seconds", consumer=CREATED)

        def rule(events: Any, *, lock: bool) -> Any:
            results: Any = CONSUMERS[CREATED].rule(events, lock=lock)
            then = lambda: threading.Event().wait(0.35)  # noqa: E731  (as long as a call to Stripe)
            return [Applied(result.outcome, then) for result in results]

        begun = clock.ticks()
        inbox.process(replace(CONSUMERS[CREATED], rule=rule), [at(clock.now(), tour, "A")])
        assert late("_sum") < clock.ticks() - begun - 0.3  # that is not what made the event late
        assert took("_sum") > 0.3
        assert took("_count") == 1


class TestAttempts:
    def test_their_duration_is_measured(self, stripe: Sandbox, payment: str) -> None:
        took = Growth("attempt_duration_seconds", queue="payments")
        refunds.cancel("BK-1", payment)
        assert took("_count") == 1


class TestWaitingForTheDatabase:
    @pytest.mark.parametrize(("code", "cause"), [("55P03", "locked"), ("57P01", "away")])
    def test_the_time_is_counted_by_its_cause(
        self, settings: Any, code: str, cause: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.OUTAGE_BASE_SECONDS = 0.02
        waited = Growth("database_wait_seconds_total", cause=cause)
        errors = iter([_refused(code), _refused(code)])
        begun = clock.ticks()

        def work() -> str:
            if error := next(errors, None):
                raise error
            return "done"

        assert outages.wait_out(work) == "done"
        assert 0 < waited() <= clock.ticks() - begun


def _refused(code: str) -> OperationalError:
    """Return what Django makes of an error with this SQLSTATE; of SQLite where it is one that knows none."""
    import psycopg

    cause = psycopg.errors.lookup(code)("of the test")
    error = OperationalError("of the test")
    error.__cause__ = cause
    return error


class TestTheRelay:
    @pytest.mark.parametrize(
        ("error", "cause"),
        [
            (BrokerRefused("full"), "refused"),
            (OSError("gone"), "broker_away"),
            (OperationalError("?"), "bug"),
            (_refused("57P01"), "database_away"),
            (ValueError("of the test"), "bug"),
        ],
    )
    def test_a_failure_is_counted_by_its_cause(self, error: Exception, cause: str) -> None:
        failed = Growth("relay_failures_total", cause=cause)

        class Broken:
            def open(self) -> None:
                raise error

        broken: Any = Broken()
        with pytest.raises(type(error)):
            relaying.drain(broken)
        assert failed() == 1


@shared_task
def fails() -> None:
    raise ValueError("of the test")


def test_a_task_that_fails_is_counted() -> None:
    failed = Growth("task_failures_total", task=fails.name)
    fails.apply()
    assert failed() == 1
