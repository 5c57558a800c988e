"""The platform itself: one worker with two pool processes, as it is started in production."""

from collections.abc import Iterable, Sequence

from kombu import Connection

from bench.broker import Outgoing, purge
from bench.contenders.contender import Contender, Ground, message
from bench.workloads import CANCELLED, WORKLOADS, Load
from booking_platform.contract.examples import Json, body
from booking_platform.development.processes import CeleryProcess

EXCHANGE = "booking-events"
CREATED_QUEUE, CANCELLED_QUEUE = "tour-catalog.booking-created", "tour-catalog.booking-cancelled"


class Platform(Contender):
    name = "platform"
    queue = CREATED_QUEUE
    workloads = tuple(WORKLOADS)
    counts_repeats = True

    def prepare(self, ground: Ground) -> None:
        from booking_platform.messaging.broker import declare

        with Connection(ground.rabbitmq_url) as broker:
            declare(broker)
        purge(ground.rabbitmq_url, (CREATED_QUEUE, CANCELLED_QUEUE))

    def outgoing(self, load: Load, event: Json) -> Outgoing:
        if load.routing_key == CANCELLED:  # not to payments and notifications, which hear it too
            return Outgoing("", CANCELLED_QUEUE, message(body(event)))
        return Outgoing(EXCHANGE, load.routing_key, message(body(event)))

    def processes(self, ground: Ground) -> Sequence[CeleryProcess]:
        return [CeleryProcess(ground.folder / "worker.log", "worker", "-c", "2")]

    def queues(self, load: Load) -> Iterable[str]:
        return (CREATED_QUEUE, CANCELLED_QUEUE)
