"""The kernel's own Celery tasks, on the queue ``maintenance``."""

from collections.abc import Sequence

from celery import shared_task
from django.db import transaction

from booking_platform.messaging import dead_letters, inbox  # noqa: F401  (loaded before the fork)
from booking_platform.messaging.consumers import EventTask
from booking_platform.messaging.groups import Delivery
from booking_platform.messaging.outages import persevere
from booking_platform.messaging.retention import CLEANUP
from booking_platform.messaging.topology import DEAD_LETTER_QUEUE


@shared_task(name="messaging.cleanup")
def cleanup() -> None:
    """Forget what has outlived its retention."""
    for forget in CLEANUP:
        forget()


@shared_task(name="messaging.record_dead_letters", base=EventTask)
def record_dead_letters(deliveries: Sequence[Delivery]) -> None:
    """Record what the broker gave up on."""
    parkings = [dead_letters.from_broker(Delivery(*delivery)) for delivery in deliveries]

    def record(_lock: bool) -> None:
        with transaction.atomic(durable=True):
            dead_letters.park(parkings)

    persevere(record, consumer=DEAD_LETTER_QUEUE.name, events=len(parkings))
    dead_letters.tell(parkings)
