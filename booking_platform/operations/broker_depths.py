"""What the broker says of the queues, asked in a thread of its own: a page does not wait for one that hangs."""

from booking_platform.messaging import broker
from booking_platform.messaging.broker import Depth
from booking_platform.operations.dashboard import NotKnown
from booking_platform.operations.health import Probe, problems_of

SECONDS = 1.0  # that a page waits for the broker

Depths = dict[str, Depth | None]  # by queue; None: the broker has no such queue


class Asked:
    """The broker, asked by one thread at a time."""

    def __init__(self) -> None:
        self._probe = Probe(self._look)
        self._depths: Depths = {}

    def depths(self) -> Depths:
        """Return what the broker says of each queue.

        Raises:
            NotKnown: it does not answer, or not in time.
        """
        [problem] = problems_of({"broker": self._probe}, SECONDS).values()
        if problem:
            raise NotKnown(f"the broker {problem}")
        return self._depths

    def _look(self) -> str:
        connection = broker.connection_to_publish()
        try:
            connection.ensure_connection(
                max_retries=1, interval_start=0, timeout=broker.BROKER_SECONDS
            )
            self._depths = broker.depths(connection)
        finally:
            connection.release()
        return ""


BROKER = Asked()
