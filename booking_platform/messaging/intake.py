"""The deliveries of one broker connection: waiting, in the pool, answered.

While a place in the pool is free, what is waiting goes there at once. While the pool is busy,
deliveries gather. An idle worker therefore answers in milliseconds, and a loaded one works in large
groups, without a timer.
"""

import math
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

from celery.platforms import EX_FAILURE
from celery.utils.log import get_logger
from celery.worker import state
from kombu import Connection, Consumer, Queue
from kombu.message import Message

from booking_platform.messaging import lenient_amqp
from booking_platform.messaging.groups import GroupMessage

logger = get_logger(__name__)


class Source:
    """One queue, consumed on a channel of its own: the queue of a delivery is never a guess."""

    def __init__(self, queue: Queue, task: str, batch: int) -> None:
        self.queue, self.task, self.batch = queue, task, batch
        self.waiting: deque[Message] = deque()
        self.channel: Any = None
        self.consumer: Consumer | None = None
        self._most_withheld = batch
        self._errors: tuple[
            type[BaseException], ...
        ] = ()  # of the connection: logged, and survived
        self._unanswered: dict[Any, None] = {}  # delivery tags, oldest first
        self._withheld: list[Message] = []  # to be acked together with what came before them

    def consume(self, connection: Connection, places: int, receive: Callable[..., None]) -> None:
        """Start consuming; ``receive`` is called with each message."""
        self._most_withheld = self.batch * places
        self._errors = connection.connection_errors
        self.channel = lenient_amqp.take_raw_bodies(connection.channel())
        self.consumer = Consumer(
            self.channel,
            [self.queue],
            on_message=receive,
            # What Kombu can't decode is taken like the rest: the task refuses it by its bytes.
            on_decode_error=lambda message, _error: receive(message),
            auto_declare=False,
            # A group in each place, as many withheld behind a slow one, and one to go next.
            prefetch_count=self.batch * (2 * places + 1),
        )
        self.consumer.consume()

    def receive(self, message: Message) -> None:
        """Add a message to those that wait."""
        self._unanswered[message.delivery_tag] = None
        self.waiting.append(message)

    def next_group(self) -> list[Message]:
        """Return what goes together: up to a batch, but a redelivered message always alone."""
        group = [self.waiting.popleft()]
        while (
            self.waiting
            and len(group) < self.batch
            and not _redelivered(group[0])
            and not _redelivered(self.waiting[0])
        ):
            group.append(self.waiting.popleft())
        return group

    def ack(self, group: Sequence[Message], *, closing: bool) -> None:
        """Ack a group, together with others where one command can speak for all of them.

        RabbitMQ's client of a quorum queue sends 32 unanswered commands and holds the rest back; a
        channel that is closed then loses them. So acks wait for what is older, up to a limit that a
        group that hangs must not exceed, or until the channel is closed.
        """
        self._answered(group)
        if not isinstance(group[-1].delivery_tag, int):  # not AMQP: `multiple` means nothing
            self._ack_each(group)
            return
        self._withheld += group
        self._ack_in_order()
        if len(self._withheld) > self._most_withheld and not closing:
            self._ack_each(self._withheld)
            self._withheld.clear()

    def reject(self, group: Sequence[Message]) -> None:
        """Return a group to its queue."""
        self._answered(group)
        for message in group:
            message.reject_log_error(logger, self._errors, requeue=True)
        self._ack_in_order()

    def return_waiting(self, ignore: Callable[..., Any]) -> None:
        """Return what is in no group yet; on AMQP the closing of the channel does it.

        Hundreds of rejects would hold back, and so lose, the acks that follow them.
        """
        in_order = self.waiting and isinstance(self.waiting[0].delivery_tag, int)
        while self.waiting:
            message = self.waiting.popleft()
            if not in_order:
                ignore(message.requeue)

    def close(self, ignore: Callable[..., Any]) -> None:
        """Ack what is withheld, and close the channel."""
        self._errors = (Exception,)
        self._ack_in_order()
        self._ack_each(self._withheld)
        if self.channel is not None:
            ignore(self.channel.close)

    def _answered(self, group: Sequence[Message]) -> None:
        for message in group:
            self._unanswered.pop(message.delivery_tag, None)

    def _ack_each(self, group: Sequence[Message]) -> None:
        for message in group:
            message.ack_log_error(logger, self._errors)

    def _ack_in_order(self) -> None:
        """Ack with one command what is withheld and older than all that is unanswered."""
        oldest: Any = next(iter(self._unanswered), math.inf)
        self._withheld.sort(key=attrgetter("delivery_tag"))
        ready = bisect_left(self._withheld, oldest, key=attrgetter("delivery_tag"))
        if ready:
            self._withheld[ready - 1].ack_log_error(logger, self._errors, multiple=True)
            del self._withheld[:ready]


class Intake:
    """Turns deliveries into groups, as many at once as the pool has places."""

    def __init__(
        self, sources: Sequence[Source], *, places: Callable[[], int], handle: Callable[[Any], None]
    ) -> None:
        """``handle`` is Celery's handler of task messages."""
        self._sources = deque(sources)
        self._places = places
        self._handle = handle
        self._lock = threading.RLock()  # without an event loop, Celery acks from pool threads
        self._in_pool = 0
        self._open = self._connected = True
        self._wake: Callable[[], Any] = self._dispatch

    def consume(self, connection: Connection, *, wake: Callable[..., Any] | None) -> None:
        """Start consuming. ``wake`` runs a function soon in the event loop, where there is one."""
        if wake is None:
            self._wake = _Dispatcher(self._dispatch).wake
        else:
            self._wake = partial(wake, self._dispatch)
        for source in self._sources:
            source.consume(connection, self._places(), partial(self._receive, source))

    @property
    def busy(self) -> bool:
        """Whether groups are in the pool whose end is not known."""
        return self._in_pool > 0

    def stop(self, ignore: Callable[..., Any]) -> None:
        """Stop consuming, and return what is waiting to its queue."""
        with self._lock:
            self._open = False
        for source in self._sources:
            if source.consumer is not None:
                ignore(source.consumer.cancel)
                source.return_waiting(ignore)

    def forget(self) -> None:
        """The connection is lost: the broker redelivers, and old acks mean nothing."""
        with self._lock:
            self._open = self._connected = False
            for source in self._sources:
                source.waiting.clear()

    def close(self, ignore: Callable[..., Any]) -> None:
        """Close the channels, once all that was in the pool is answered."""
        for source in self._sources:
            source.close(ignore)

    def _receive(self, source: Source, message: Message) -> None:
        with self._lock:
            source.receive(message)
        self._wake()

    def _dispatch(self) -> None:
        while group := self._next_group():
            self._handle(group)

    def _next_group(self) -> GroupMessage | None:
        with self._lock:
            if not self._open or self._in_pool >= self._places():
                return None
            for _ in range(len(self._sources)):  # the queues take turns
                self._sources.rotate(-1)
                source = self._sources[0]
                if source.waiting:
                    self._in_pool += 1
                    return self._message(source, source.next_group())
            return None

    def _message(self, source: Source, group: list[Message]) -> GroupMessage:
        finish = partial(self._finish, source, group)
        return GroupMessage(source.task, source.queue.name, group, finish)

    def _finish(self, source: Source, group: list[Message], acknowledged: bool) -> None:
        """Free the place of a group, and answer the broker if it can still be reached."""
        with self._lock:
            self._in_pool -= 1
            if self._connected and acknowledged:
                source.ack(group, closing=not self._open)
            elif self._connected:
                source.reject(group)
        self._wake()


class _Dispatcher:
    """Runs a function in a thread of its own, once or more after each call of ``wake``.

    Celery's result thread must not hand new work to a full pool: it would wait for itself.
    """

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function
        self._event = threading.Event()
        threading.Thread(target=self._run, name="event-dispatcher", daemon=True).start()

    def wake(self) -> None:
        self._event.set()

    def _run(self) -> None:
        while self._event.wait():
            self._event.clear()
            try:
                self._function()
            except BaseException:
                state.should_stop = EX_FAILURE  # type: ignore[assignment]  # as an error in the event loop would
                raise


def _redelivered(message: Message) -> bool:
    return bool(message.delivery_info.get("redelivered"))
