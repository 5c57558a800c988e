"""The kernel's own Celery tasks, on the queue ``maintenance``."""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from celery import shared_task
from django.db import transaction

from booking_platform.contract.announcing import ANNOUNCEMENTS
from booking_platform.contract.envelope import identify
from booking_platform.messaging import (
    bound,
    clock,
    dead_letters,
    heartbeats,
    outages,
    outbox,
    retention,
    topology,
    tracing,
)
from booking_platform.messaging.dead_letters import Parking
from booking_platform.messaging.groups import Delivery, GroupTask, is_group
from booking_platform.messaging.relaying import RELAY, relay_now
from booking_platform.messaging.suspects import Trial, portions
from booking_platform.messaging.telling import safely


@shared_task(name=retention.TASK)
def cleanup() -> None:
    """Delete what has outlived its retention, beside the work where this is a process of a worker."""
    if not retention.CLEANER.start():
        retention.clean_up()


@shared_task(name="messaging.relay")
def relay() -> None:
    """Publish what waits in the outbox."""
    if not RELAY.nudge():
        relay_now()


@shared_task(name=heartbeats.TASK, bind=True)
def heartbeat(self: Any, queue: str) -> None:
    """Store that this worker serves a queue."""
    heartbeats.store(queue, str(self.request.hostname))


@shared_task(name="messaging.record_dead_letters", base=GroupTask)
def record_dead_letters(deliveries: Any) -> None:
    """Record what the broker gave up on."""
    _record(topology.dead_letter_queue().name, dead_letters.from_broker, deliveries)


@shared_task(name="messaging.record_unroutable", base=GroupTask)
def record_unroutable(deliveries: Any) -> None:
    """Record what no queue takes, but for announcements: nobody need listen to them."""
    if is_group(deliveries):  # where the broker's user could not bind their keys, they come here
        deliveries = [each for each in deliveries if not _announces(each)]
        if not deliveries:
            return
    _record(topology.unroutable_queue().name, dead_letters.unroutable, deliveries)


def _announces(delivery: Delivery) -> bool:
    """Return whether a message is an announcement; any other event under its key is recorded."""
    announcement = ANNOUNCEMENTS.get(delivery.routing_key)
    return announcement is not None and identify(delivery.body)[1] == announcement.__name__


def _record(queue: str, parked: Callable[[Delivery, datetime], Parking], deliveries: Any) -> None:
    if not is_group(deliveries):
        raise TypeError("This task takes what a worker found in its queue, and nothing by hand.")
    now = outages.wait_out(clock.now, what="dead letters", events=len(deliveries))
    with bound.group(queue, deliveries), tracing.group(queue, "", deliveries) as told:
        for portion in portions(queue, told.deliveries):
            read = partial(dead_letters.unread, queue) if portion.poison else parked
            parkings = [read(delivery, now) for delivery in portion.deliveries]
            trial = None if portion.poison else portion.trial
            park = partial(_park, parkings, trial)
            if trial is not None:
                park = partial(trial.attempt, park)
            outages.wait_out(park, what="dead letters", events=len(parkings))
            RELAY.nudge()
            safely(dead_letters.tell, parkings)


def _park(parkings: Sequence[Parking], trial: Trial | None) -> None:
    with transaction.atomic(durable=True):
        if trial is not None:
            trial.end()
        outbox.store_all(dead_letters.park(parkings))
