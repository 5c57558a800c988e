"""What a worker shows before it has counted anything: the first of a kind is then seen as one more."""

from collections.abc import Collection, Iterable

from booking_platform.messaging import metrics, outages, relaying
from booking_platform.messaging.rules import CONSUMERS


def show(task_queues: Collection[str], tasks: Iterable[str]) -> None:
    """Show 0 for what the worker of some task queues may count, where the labels are known."""
    for consumer in CONSUMERS.values():
        if consumer.task_queue in task_queues:
            metrics.DUPLICATE_EVENTS.known(consumer.payload.__name__)
            metrics.EVENTS.known(consumer.queue, str(consumer.usual_outcome))
    for cause in outages.CAUSES:
        metrics.DATABASE_WAIT_SECONDS.known(cause)
    for cause in relaying.CAUSES:
        metrics.RELAY_FAILURES.known(cause)
    for name in tasks:
        if not name.startswith("celery."):
            metrics.TASK_FAILURES.known(name)
