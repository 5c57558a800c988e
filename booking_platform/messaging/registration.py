"""The two registrations by which an app takes part: ``@consumes`` and ``@leased``.

They belong in the ``tasks.py`` of an app that is in ``INSTALLED_APPS``. ``docs/adding-a-consumer.md``
shows both at work.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from celery import shared_task
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db.models import TextChoices

from booking_platform.contract.envelope import Payload
from booking_platform.messaging import by_hand, leases, partitions, sweeps
from booking_platform.messaging.groups import GroupTask, is_group
from booking_platform.messaging.leases import Conclusion, Leased
from booking_platform.messaging.relaying import RELAY
from booking_platform.messaging.rules import Consumer, Rule, register, register_sweep

R = TypeVar("R", bound=Leased)


def consumes(
    *,
    routing_key: str,
    queue: str,
    payload: type[Payload],
    usual_outcome: TextChoices,
    uses: Sequence[str] | None = None,
    batch: int = 1,
    requires: Mapping[str, str] | None = None,
    partition_by: str | None = None,
    replay_permission: str | None = None,
) -> Callable[[Rule], Any]:
    """Register a rule as the consumer of a queue; return a Celery task that applies events.

    The task takes groups from the queue, and what people give it: ``booking_created(event)`` applies
    an event here and returns its outcome, ``booking_created.delay(event)`` has a worker do it.
    ``payload`` is the type of the events, ``usual_outcome`` the most frequent of the outcomes of
    the rule. ``uses`` names the optional fields of the payload that the rule reads: what is wrong with
    another one does not keep it from its work; without ``uses`` all are read. ``requires`` names
    settings, and what to set them to: a worker does not start on the queue without them.
    ``partition_by`` names the field of the payload by which events are spread where
    ``EVENT_PARTITIONS`` is set: those with the same value are applied by one worker at a time.
    ``replay_permission`` names a permission of Django (``"app.codename"``) that people need, beside the
    one to replay, edit or discard dead letters, to do so with those of this queue. The workers of the
    app (``-Q``, and the label of the app) serve the queue.

    Raises:
        ImproperlyConfigured: the rule is in no installed app, or collides with another consumer.
    """

    def registered(rule: Rule) -> Any:
        app = _app_label(rule)
        consumer = Consumer(
            queue=queue,
            routing_key=routing_key,
            payload=payload,
            uses=None if uses is None else tuple(uses),
            batch=batch,
            rule=rule,
            task=f"{app}.{getattr(rule, '__name__', 'rule')}",
            task_queue=app,
            usual_outcome=usual_outcome,
            requires=requires or {},
            partition_by=partition_by,
            replay_permission=replay_permission,
        )
        register(consumer)
        return _task(consumer)

    return registered


def _task(consumer: Consumer) -> Any:
    @shared_task(name=consumer.task, base=GroupTask, bind=True)
    def task(self: Any, events: Any) -> Any:
        if is_group(events):
            came_from = self.request.delivery_info["routing_key"]
            return partitions.process(consumer, events, came_from=came_from)
        here = self.request.called_directly or self.request.is_eager
        return by_hand.apply(consumer, events, park=not here)

    task.__doc__ = consumer.rule.__doc__
    return task


def leased(
    model: type[R], *, lost: Callable[[R, datetime], Conclusion] | None = None
) -> Callable[[Callable[[R], Conclusion]], Any]:
    """Register how one attempt is made at a row of a leased model; return a Celery task.

    The task takes up one row by its primary key, if that row is due. A second task, ``sweep``, which
    beat sends every ``SWEEP_SECONDS``, asks for an attempt at each row that is due. Both run on the
    queue of the app. ``lost`` returns the conclusion for a row of ``model.not_again`` whose worker
    was lost.

    Raises:
        ImproperlyConfigured: the function is in no installed app, or the app has another.
    """

    def registered(attempt: Callable[[R], Conclusion]) -> Any:
        task_queue = _app_label(attempt)
        register_sweep(f"{task_queue}.sweep")

        @shared_task(name=f"{task_queue}.attempt")
        def attempt_one(pk: int) -> None:
            leases.take_up(model._default_manager.filter(pk=pk), attempt)
            RELAY.nudge()

        @shared_task(name=f"{task_queue}.sweep")
        def sweep() -> None:
            sweeps.sweep(model, attempt_one, lost)
            RELAY.nudge()

        attempt_one.__doc__ = attempt.__doc__
        return attempt_one

    return registered


def _app_label(function: Any) -> str:
    config = apps.get_containing_app_config(function.__module__)
    if config is None:
        raise ImproperlyConfigured(
            f"{function.__module__} is in no app of INSTALLED_APPS: its consumers can't be registered."
        )
    return str(config.label)
