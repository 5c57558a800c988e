"""Which task takes which queue, and the step of Celery's worker that feeds them."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import structlog
from amqp.exceptions import PreconditionFailed
from celery import Task, bootsteps, shared_task
from celery.exceptions import WorkerShutdown
from celery.worker import state
from kombu.common import ignore_errors

from booking_platform.messaging import topology
from booking_platform.messaging.envelope import Event
from booking_platform.messaging.groups import Delivery, GroupRequest
from booking_platform.messaging.intake import Intake, Source
from booking_platform.messaging.topology import DEAD_LETTER_QUEUE, EventQueue

log = structlog.get_logger(__name__)

DEAD_LETTER_BATCH = 50
LAST_TURNS = 5  # of the event loop, in which the last acks are sent
LOST_PROCESS_SECONDS = 0.5  # between looks for dead pool processes; Celery's own are 5 s apart


@dataclass(frozen=True)
class Refused:
    """An event that a rule can't apply: it is parked, and leaves no trace but that."""

    reason: str  # a DeadLetter.Reason
    detail: str


class Rule(Protocol):
    """What a consumer does with events that it has not seen before, inside their transaction.

    It answers each event, in order, with an outcome or a refusal. ``lock`` asks it to take row
    locks before it reads, so that it can't lose a race.

    Raises:
        LostRace: something changed since it was read; the transaction is done again.
    """

    def __call__(self, events: Sequence[Event], *, lock: bool) -> Sequence[str | Refused]: ...


class LostRace(Exception):
    """Another transaction changed the row first."""

    def __init__(self, resource_type: str, **context: Any) -> None:
        super().__init__(resource_type, context)
        self.resource_type = resource_type
        self.context = context


@dataclass(frozen=True)
class Consumer:
    """One queue's events and the rule that applies them, once each."""

    queue: EventQueue
    rule: Rule
    usual_outcome: str  # claimed with the event, so that only the others need a second write
    requires: Mapping[str, str] = field(default_factory=dict)  # settings it can't do without

    @property
    def name(self) -> str:
        return self.queue.name


class EventTask(Task):  # type: ignore[type-arg]
    """A Celery task whose message is acknowledged once all its events are committed or parked."""

    Request = GroupRequest  # type: ignore[assignment]
    acks_late = True
    reject_on_worker_lost = True
    acks_on_failure = acks_on_timeout = False
    ignore_result = True


CONSUMERS: dict[str, Consumer] = {}  # by queue
_TASKS: dict[str, str] = {}  # queue -> name of the Celery task


def consumes(
    queue: EventQueue, *, usual_outcome: str, requires: Mapping[str, str] | None = None
) -> Callable[[Rule], Any]:
    """Make a rule the consumer of a queue, and a Celery task that takes a group of its events.

    ``requires`` names settings, and what to set them to: a worker does not start on the queue
    without them.
    """

    def register(rule: Rule) -> Any:
        consumer = Consumer(queue, rule, usual_outcome, requires or {})
        name = f"{queue.task_queue}.{rule.__name__}"  # type: ignore[attr-defined]

        @shared_task(name=name, base=EventTask)
        def task(deliveries: Sequence[Delivery]) -> None:
            from booking_platform.messaging import inbox  # models: not before Django is ready

            inbox.settle(consumer, [Delivery(*delivery) for delivery in deliveries])

        CONSUMERS[queue.name], _TASKS[queue.name] = consumer, name
        return task

    return register


class EventConsumers(bootsteps.ConsumerStep):
    """Consumes the event queues that belong to the task queues selected with ``-Q``."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self.intake: Intake | None = None
        self._loop = parent.loop
        parent.loop = self._run

    def start(self, c: Any) -> None:
        from django.conf import settings

        limit = settings.EVENT_DELIVERY_LIMIT
        try:
            topology.declare(c.connection, delivery_limit=limit)
        except PreconditionFailed as error:
            log.critical(
                "A queue exists on the broker with other arguments, which can't be changed while "
                "it lives. Set EVENT_DELIVERY_LIMIT to what the queue has, or stop the producers, "
                "let the workers empty the queue, delete it and start again.",
                broker_says=error.reply_text,
            )
            raise WorkerShutdown(os.EX_CONFIG) from error
        task_queues = c.app.amqp.queues.consume_from
        _refuse_without_settings(task_queues)
        self.intake = Intake(
            list(self._sources(task_queues, limit)),
            places=lambda: c.pool.num_processes,
            handle=c.create_task_handler(),
        )
        if c.hub is None:
            self.intake.consume(c.connection, wake=None)

    def register_with_event_loop(self, c: Any, hub: Any) -> None:
        # Not before: until the pool is in the event loop too, a delivery would crash the worker.
        assert self.intake is not None
        hub.call_soon(partial(self.intake.consume, c.connection, wake=hub.call_soon))
        if hasattr(c.pool, "maintain_pool"):
            hub.call_repeatedly(LOST_PROCESS_SECONDS, c.pool.maintain_pool)

    def _run(self, c: Any, *args: Any) -> None:
        """Run Celery's event loop and, when it is told to stop, what is in the pool.

        In ``stop`` it would be too late: before that, Celery forgets the requests that no process
        of the pool has accepted yet. What was on its way to a process is done all the same, but
        the result is dropped and nothing acked.
        """
        try:
            self._loop(c, *args)
        except WorkerShutdown:
            self.stop(c)
            ignore_errors(c.connection, self._finish, c)
            raise

    def stop(self, c: Any) -> None:
        if self.intake is None:
            return
        if c.connection is None:
            self.intake.forget()
        else:
            self.intake.stop(partial(ignore_errors, c.connection))

    def _finish(self, c: Any) -> None:
        """Run the event loop until what is in the pool is settled.

        Celery's pool, stopping, can end before it has read the last results of its processes: what
        they had committed would never be acked. `QUIT` ends the wait, and so does Celery's knowing
        of no request any more: its remote `shutdown` breaks off a turn of the loop, and an ack that
        was to be sent in it is lost. The broker delivers that group again.
        """
        loop = c.hub and c.hub.create_loop()
        idle = 0  # turns of the loop in which Celery knew of no request
        while loop and self.intake and self.intake.busy and not state.should_terminate:
            idle = 0 if state.reserved_requests else idle + 1
            if idle > LAST_TURNS:
                break
            try:
                next(loop)
            except StopIteration:
                loop = c.hub.create_loop()

    def shutdown(self, c: Any) -> None:
        if self.intake is not None and c.connection is not None:
            self.intake.close(partial(ignore_errors, c.connection))

    def _sources(self, task_queues: Any, delivery_limit: int) -> Any:
        for queue in topology.EVENT_QUEUES:
            if queue.name in _TASKS and queue.task_queue in task_queues:
                broker_queue = topology.broker_queue(queue, delivery_limit=delivery_limit)
                yield Source(broker_queue, _TASKS[queue.name], queue.batch)
        if "maintenance" in task_queues:
            yield Source(DEAD_LETTER_QUEUE, "messaging.record_dead_letters", DEAD_LETTER_BATCH)


def _refuse_without_settings(task_queues: Any) -> None:
    """End the worker if one of its queues can't be worked on as it is set up."""
    from django.conf import settings

    for consumer in CONSUMERS.values():
        for name, purpose in consumer.requires.items():
            if consumer.queue.task_queue in task_queues and not getattr(settings, name):
                log.critical(
                    f"{name} is not set, and {consumer.name} can't be consumed without it: set it "
                    f"to {purpose}, or leave {consumer.queue.task_queue!r} out of --queues."
                )
                raise WorkerShutdown(os.EX_CONFIG)
