"""The kernel's own Celery tasks, on the queue ``maintenance``."""

from collections.abc import Sequence
from functools import partial

from celery import shared_task
from django.db import transaction

from booking_platform.messaging import clock, dead_letters, outages, retention
from booking_platform.messaging.dead_letters import Parking
from booking_platform.messaging.groups import Delivery, GroupTask


@shared_task(name="messaging.cleanup")
def cleanup() -> None:
    """Delete what has outlived its retention."""
    retention.clean_up()


@shared_task(name="messaging.record_dead_letters", base=GroupTask)
def record_dead_letters(deliveries: Sequence[Delivery]) -> None:
    """Record what the broker gave up on."""
    now = outages.wait_out(clock.now, what="dead letters", events=len(deliveries))
    parkings = [dead_letters.from_broker(Delivery(*delivery), now) for delivery in deliveries]
    outages.wait_out(partial(_park, parkings), what="dead letters", events=len(parkings))
    dead_letters.tell(parkings)


def _park(parkings: Sequence[Parking]) -> None:
    with transaction.atomic(durable=True):
        dead_letters.park(parkings)
