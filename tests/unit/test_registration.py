"""What follows from a registration, and which ones are refused."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from celery import current_app
from django.core.exceptions import ImproperlyConfigured
from django.db.models import TextChoices

from booking_platform.contract.envelope import Event
from booking_platform.contract.events import BookingCancelled, BookingCreated
from booking_platform.messaging import registration, rules, sweeps, topology
from booking_platform.messaging.leases import Conclusion
from booking_platform.messaging.registration import consumes, leased
from booking_platform.messaging.rules import CONSUMERS, REASONS, Applied, Consumer, Result
from catalog.bookings import Outcome
from payments.models import Refund

CREATED = "tour-catalog.booking-created"


def rule(events: Sequence[Event], *, lock: bool) -> Sequence[Result]:
    """Apply everything."""
    return [Applied(Outcome.RESERVED) for _ in events]


def register(
    queue: str = "new.booking-created",
    routing_key: str = "booking.created",
    payload: type[BookingCreated | BookingCancelled] = BookingCreated,
    module: str = "catalog.tasks",
) -> None:
    rule.__module__ = module
    consumes(queue=queue, routing_key=routing_key, payload=payload, usual_outcome=Outcome.RESERVED)(
        rule
    )


@pytest.fixture(autouse=True)
def _registries() -> Iterator[None]:
    """Leave the registries as they were found."""
    consumers, reasons, sweeps = dict(CONSUMERS), dict(REASONS), list(rules.SWEEPS)
    yield
    for registry, before in ((CONSUMERS, consumers), (REASONS, reasons)):
        registry.clear()
        registry.update(before)  # type: ignore[arg-type]  # each its own
    rules.SWEEPS[:] = sweeps
    current_app.tasks.pop("catalog.rule", None)


class Overlong(TextChoices):
    OUTCOME = "x" * 51, "more letters than the column holds"


class TestAConsumer:
    def test_its_task_and_queues_follow_from_its_app(self) -> None:
        register()
        consumer = CONSUMERS["new.booking-created"]
        assert (consumer.task, consumer.task_queue) == ("catalog.rule", "catalog")
        assert current_app.tasks["catalog.rule"].__doc__ == "Apply everything."
        queue = topology.event_queue(consumer)
        assert (queue.exchange.name, queue.routing_key) == ("booking-events", "booking.created")

    def test_a_queue_has_one_consumer(self) -> None:
        with pytest.raises(
            ImproperlyConfigured, match=r"has the consumer catalog\.booking_created"
        ):
            register(queue=CREATED)

    def test_a_routing_key_carries_one_type_of_event(self) -> None:
        with pytest.raises(ImproperlyConfigured, match=r"carries BookingCreated, not BookingCanc"):
            register(payload=BookingCancelled)
        assert "new.booking-created" not in CONSUMERS

    def test_the_name_of_a_queue_fits_its_column(self) -> None:
        with pytest.raises(ImproperlyConfigured, match="more than 100 letters"):
            register(queue="q" * 101)

    @pytest.mark.parametrize(
        ("wrong", "problem"),
        [
            ({"batch": 0}, "batch is 0"),
            ({"partition_by": "tour"}, "partition_by is 'tour', which BookingCreated does not"),
            ({}, r"have 'booking\.created' for catalog\.booking_created already"),
            ({"replay_permission": "replay"}, "must be 'app.codename'"),
            ({"uses": ("booking_id", "amuont")}, "uses names 'amuont', which BookingCreated does"),
            ({"usual_outcome": "reserved"}, "one of a TextChoices"),
            ({"usual_outcome": Overlong.OUTCOME}, "1 to 50 letters"),
            ({"task": "catalog.booking_created"}, "another task of the app has that name"),
            ({"task": "catalog.sweep"}, "@leased may give it"),
        ],
    )
    def test_what_could_not_work_is_refused_at_start(
        self, wrong: dict[str, Any], problem: str
    ) -> None:
        consumer = replace(CONSUMERS[CREATED], queue="new", task="catalog.rule")
        with pytest.raises(ImproperlyConfigured, match=problem):
            rules.register(replace(consumer, **wrong))

    def test_it_belongs_to_an_installed_app(self) -> None:
        with pytest.raises(ImproperlyConfigured, match=r"nowhere.tasks is in no app"):
            register(module="nowhere.tasks")

    def test_outcomes_have_the_meanings_of_its_own_rule(self) -> None:
        assert CONSUMERS[CREATED].outcomes["rejected"] == "found too few seats and took none"


class TestALeasedModel:
    def test_each_has_a_sweep_that_beat_sends(self) -> None:
        entries = sweeps.beat_entries()
        assert {"payments.sweep", "notifications.sweep"} <= set(entries)
        assert {"payments.attempt", "payments.sweep"} <= set(current_app.tasks)

    def test_an_app_has_one(self) -> None:
        def attempt(refund: Refund) -> Conclusion:
            return Conclusion()

        attempt.__module__ = "payments.tasks"
        with pytest.raises(ImproperlyConfigured, match=r"payments.sweep is registered twice"):
            leased(Refund)(attempt)


class TestReasons:
    def test_a_code_is_registered_once(self) -> None:
        with pytest.raises(ImproperlyConfigured, match="'poison' is registered twice"):
            rules.reason("poison", "something else")

    def test_a_code_fits_its_column(self) -> None:
        with pytest.raises(ImproperlyConfigured, match="more than 30 letters"):
            rules.reason("x" * 31, "too long")

    @pytest.mark.parametrize("code", sorted(REASONS))
    def test_each_says_what_a_person_can_do(self, code: str) -> None:
        assert REASONS[code].meaning
        assert REASONS[code].advice.endswith(".")


class TestRouting:
    def test_a_task_goes_to_the_queue_of_its_app(self) -> None:
        assert topology.route("payments.attempt") == {"queue": "payments"}
        assert topology.route("messaging.cleanup") == {"queue": "maintenance"}
        assert topology.route("celery.backend_cleanup") == {"queue": "maintenance"}

    def test_queues_of_celery_follow_from_the_consumers(self) -> None:
        queues = ["maintenance", "catalog", "payments", "notifications"]
        assert topology.task_queues() == queues
        other: Consumer = replace(CONSUMERS[CREATED], queue="other", task_queue="loyalty")
        CONSUMERS["other"] = other
        assert topology.task_queues() == [*queues, "loyalty"]

    def test_an_app_that_only_leases_has_a_queue_too(self) -> None:
        rules.register_sweep("partner.sweep")
        assert topology.route("partner.attempt") == {"queue": "partner"}

    def test_celerys_own_commands_know_the_queues_before_django_is_set_up(self) -> None:
        look = (
            "from booking_platform.celery import app;"
            "print(app.amqp.router.route({}, 'payments.sweep')['queue'].name, *app.amqp.queues)"
        )
        said = subprocess.run(
            [sys.executable, "-c", look], capture_output=True, text=True, check=True
        ).stdout
        assert said.split() == ["payments", "maintenance", "catalog", "payments", "notifications"]

    def test_both_decorators_are_in_one_place(self) -> None:
        assert {"consumes", "leased"} <= set(vars(registration))
