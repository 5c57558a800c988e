"""What a contender is, and what holds for most of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import amqp

from bench.broker import Outgoing, channel
from bench.database import Connection, number
from bench.workloads import Load
from booking_platform.contract.examples import Json, body
from booking_platform.development.processes import PythonProcess

PERSISTENT = 2


@dataclass(frozen=True)
class Ground:
    """The servers of a run, and a folder for what its processes write."""

    connection: Connection
    rabbitmq_url: str
    database_url: str
    folder: Path


class Program(PythonProcess):
    """A command that is not Python's."""

    def __init__(
        self, *command: str, log_file: Path | None = None, env: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(log_file=log_file, env=env)
        self._command = command


class Contender:
    """A consumer of bookings that is measured.

    ``share`` is how many of the platform's events it is given: a slow one shows its speed with fewer.
    """

    name: str
    queue: str
    share: float = 1.0
    workloads: tuple[str, ...] = ("spread", "hot")
    keeps_ledger = True  # whether it writes processed events and reservations
    counts_repeats = False  # whether it stores how often an event came again
    quorum = (
        True  # whether its queue is a quorum queue; else it is what the library makes by default
    )

    def prepare(self, ground: Ground) -> None:
        """Make the queue, empty, and what else must be there before events are published."""
        arguments = {"x-queue-type": "quorum"} if self.quorum else {}
        with channel(ground.rabbitmq_url) as opened:
            opened.queue_declare(self.queue, durable=True, auto_delete=False, arguments=arguments)
            opened.queue_purge(self.queue)

    def outgoing(self, load: Load, event: Json) -> Outgoing:
        """Return the message of an event."""
        return Outgoing("", self.queue, message(body(event)))

    def processes(self, ground: Ground) -> Sequence[PythonProcess]:
        """Return the processes that consume, not started yet."""
        raise NotImplementedError

    def queues(self, load: Load) -> Iterable[str]:
        """Return the queues that must be empty when all is done."""
        return (self.queue,)

    def changed(self, ground: Ground, load: Load) -> int:
        """Return by how many seats the tours have changed so far."""
        reserved = number(ground.connection, "SELECT sum(reserved_seats) FROM tours")
        return abs(reserved - load.held)

    def lost(self, ground: Ground) -> int:
        """Return how many events the contender has given up, by its own account."""
        return 0


def message(content: bytes, **properties: object) -> amqp.Message:
    """Return a persistent message that holds JSON."""
    given = {"content_type": "application/json", "content_encoding": "utf-8"} | properties
    return amqp.Message(content, delivery_mode=PERSISTENT, **given)
