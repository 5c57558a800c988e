"""The kernel's own Celery tasks, on the queue ``maintenance``."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from celery import shared_task
from django.db import transaction

from booking_platform.messaging import dead_letters, outages
from booking_platform.messaging.dead_letters import Parking
from booking_platform.messaging.groups import Delivery, GroupTask, is_group
from booking_platform.messaging.retention import CLEANUP


@shared_task(name="messaging.cleanup")
def cleanup() -> None:
    """Delete what has outlived its retention."""
    for forget in CLEANUP:
        forget()


@shared_task(name="messaging.record_dead_letters", base=GroupTask)
def record_dead_letters(deliveries: Any) -> None:
    """Record what the broker gave up on."""
    _record(dead_letters.from_broker, deliveries)


@shared_task(name="messaging.record_unroutable", base=GroupTask)
def record_unroutable(deliveries: Any) -> None:
    """Record what no queue takes."""
    _record(dead_letters.unroutable, deliveries)


def _record(parked: Callable[[Delivery], Parking], deliveries: Any) -> None:
    if not is_group(deliveries):
        raise TypeError("This task takes what a worker found in its queue, and nothing by hand.")
    parkings = [parked(delivery) for delivery in deliveries]
    outages.wait_out(partial(_park, parkings), what="dead letters", events=len(parkings))
    dead_letters.tell(parkings)


def _park(parkings: Sequence[Parking]) -> None:
    with transaction.atomic(durable=True):
        dead_letters.park(parkings)
