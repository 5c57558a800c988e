"""The step of Celery's worker that consumes the event queues.

Everything here runs in the main process of the worker.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import structlog
from celery import bootsteps
from celery.exceptions import WorkerShutdown
from celery.worker import state
from django.conf import settings
from kombu.common import ignore_errors

from booking_platform.messaging import broker, farewell, topology
from booking_platform.messaging.celery_consumer import TaskMessages
from booking_platform.messaging.intake import Intake
from booking_platform.messaging.partition_sources import BALANCE_SECONDS, Balance, Partition
from booking_platform.messaging.rules import CONSUMERS, partitioned
from booking_platform.messaging.sources import Source

log = structlog.get_logger(__name__)

DEAD_LETTER_BATCH = 50
LAST_TURNS = 5  # of the event loop, in which the last acks are sent
LOST_PROCESS_SECONDS = 0.5  # between looks for dead pool processes; Celery's own are 5 s apart


class EventConsumers(bootsteps.ConsumerStep):
    """Consumes the event queues that belong to the task queues selected with ``-Q``."""

    requires = (TaskMessages,)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self.intake: Intake | None = None
        self._balances: list[Balance] = []
        self._loop = parent.loop
        parent.loop = self._run

    def start(self, c: Any) -> None:
        task_queues = c.app.amqp.queues.consume_from
        _refuse_without_settings(task_queues)
        _refuse_autoscale_of_a_fixed_pool(c)
        _show_first_counts(task_queues, c.app.tasks)
        for name in sorted(set(task_queues) - set(topology.task_queues())):
            log.warning("No app takes part in a queue of that name", queue=name)
        sources = list(_sources(task_queues))
        self._balances = list(_balances(task_queues, c.connection, sources))
        spread = [source for balance in self._balances for source in balance.partitions]
        self.intake = Intake(
            [*sources, *spread],
            places=lambda: places(c.pool, c.controller.autoscaler),
            handle=c.create_task_handler(),
        )
        if c.hub is None:
            self.intake.consume(c.connection, loop=None)

    def register_with_event_loop(self, c: Any, hub: Any) -> None:
        # Not before: until the pool is in the event loop too, a delivery would crash the worker.
        assert self.intake is not None
        hub.call_soon(partial(self.intake.consume, c.connection, loop=hub))
        if self._balances:
            hub.call_repeatedly(BALANCE_SECONDS, self._balance)
        if hasattr(c.pool, "maintain_pool"):
            hub.call_repeatedly(LOST_PROCESS_SECONDS, c.pool.maintain_pool)

    def _balance(self) -> None:
        for balance in self._balances:
            balance.restore()

    def _run(self, c: Any, *args: Any) -> None:
        """Run Celery's event loop and, when it is told to stop, finish what is in the pool.

        In ``stop`` it would be too late: before that, Celery forgets the requests that no process
        of the pool has accepted yet. What was on its way to a process is done all the same, but
        the result is dropped and nothing acked.
        """
        try:
            self._loop(c, *args)
        except WorkerShutdown:
            farewell.begin()  # remote control sends no signal
            self.stop(c)
            ignore_errors(c.connection, self._finish, c)
            raise

    def stop(self, c: Any) -> None:
        self._balances = []
        if self.intake is None:
            return
        if c.connection is None:
            self.intake.forget()
        else:
            self.intake.stop(partial(ignore_errors, c.connection))

    def _finish(self, c: Any) -> None:
        """Run the event loop until what is in the pool is answered.

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


def _sources(task_queues: Collection[str]) -> Iterator[Source]:
    for consumer in CONSUMERS.values():
        if consumer.task_queue in task_queues:
            yield Source(topology.event_queue(consumer), consumer.task, consumer.batch)
    if topology.MAINTENANCE in task_queues:
        yield Source(
            topology.dead_letter_queue(), "messaging.record_dead_letters", DEAD_LETTER_BATCH
        )
        yield Source(topology.unroutable_queue(), "messaging.record_unroutable", DEAD_LETTER_BATCH)


def _balances(
    task_queues: Collection[str], connection: Any, sources: Sequence[Source]
) -> Iterator[Balance]:
    for app, consumers in partitioned().items():
        if app in task_queues:
            former = broker.former_partitions(connection, app)
            for queue in former:
                log.warning("More partitions were in use before: it is emptied", queue=queue.name)
            tasks = {consumer.task for consumer in consumers.values()}
            upstream = [source for source in sources if source.task in tasks]
            filled = [Partition(queue, consumers, upstream) for queue in topology.partitions(app)]
            yield Balance([*filled, *(Partition(queue, consumers) for queue in former)])


def _show_first_counts(task_queues: Collection[str], tasks: Iterable[str]) -> None:
    # Not before: it has models, and numbers whose files were not installed yet.
    from booking_platform.messaging import first_counts

    first_counts.show(task_queues, tasks)


def _refuse_without_settings(task_queues: Collection[str]) -> None:
    """End the worker if one of its queues can't be worked on as it is set up."""
    for consumer in CONSUMERS.values():
        for name, purpose in consumer.requires.items():
            if consumer.task_queue in task_queues and not getattr(settings, name):
                log.critical(
                    f"{name} is not set, and {consumer.queue} can't be consumed without it: set it "
                    f"to {purpose}, or leave {consumer.task_queue!r} out of --queues."
                )
                raise WorkerShutdown(os.EX_CONFIG)


def places(pool: Any, autoscaler: Any) -> int:
    """Return how many groups may be in the pool: with ``--autoscale`` as many as it may grow to.

    Celery's autoscaler adds a process when there are more requests than processes, and only then.
    """
    most: int = max(pool.num_processes, autoscaler.max_concurrency if autoscaler else 0)
    return most


def _refuse_autoscale_of_a_fixed_pool(c: Any) -> None:
    """End the worker if it is told to grow a pool that can't: Celery would crash when it tries."""
    if c.controller.autoscaler and not hasattr(c.pool, "grow"):
        log.critical("This pool can't grow: leave --autoscale out, and set --concurrency instead.")
        raise WorkerShutdown(os.EX_CONFIG)
