"""The deliveries of one broker connection: waiting, in the pool, settled.

When the pool is free, what is waiting goes at once; while it is busy, deliveries gather. So an
idle worker answers in milliseconds and a loaded one works in large groups, without a timer.
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

from booking_platform.messaging.groups import GroupMessage

logger = get_logger(__name__)


class Source:
    """One queue, consumed on a channel of its own, so that a delivery's queue is never a guess."""

    def __init__(self, queue: Queue, task: str, batch: int) -> None:
        self.queue, self.task, self.batch = queue, task, batch
        self.most_withheld = batch
        self.waiting: deque[Message] = deque()
        self.channel: Any = None
        self.consumer: Consumer | None = None
        self._unsettled: dict[Any, None] = {}  # delivery tags, oldest first
        self._withheld: list[Message] = []  # settled, but to be acked with what came before them

    def receive(self, message: Message) -> None:
        self._unsettled[message.delivery_tag] = None
        self.waiting.append(message)

    def next_group(self) -> list[Message]:
        """Take what goes together: up to a batch, but a redelivered message always alone."""
        group = [self.waiting.popleft()]
        while (
            self.waiting
            and len(group) < self.batch
            and not _redelivered(group[0])
            and not _redelivered(self.waiting[0])
        ):
            group.append(self.waiting.popleft())
        return group

    def ack(self, group: Sequence[Message], log: Callable[..., Any], *, closing: bool) -> None:
        """Ack a group, together with others where one command can speak for all of them.

        RabbitMQ's client of a quorum queue sends 32 unanswered commands and holds the rest back; a
        channel that is closed then loses them. So acks wait for what is older, up to a limit that a
        group that hangs must not exceed, or until the channel is closed.
        """
        self._settle(group)
        if not isinstance(group[-1].delivery_tag, int):  # not AMQP: `multiple` means nothing
            for message in group:
                log(message.ack_log_error)
            return
        self._withheld += group
        self._ack_in_order(log)
        if len(self._withheld) > self.most_withheld and not closing:
            for message in self._withheld:
                log(message.ack_log_error)
            self._withheld.clear()

    def reject(self, group: Sequence[Message], log: Callable[..., Any]) -> None:
        """Return a group to its queue."""
        self._settle(group)
        for message in group:
            log(message.reject_log_error, requeue=True)
        self._ack_in_order(log)

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
        def log(answer: Callable[..., None], **how: Any) -> None:
            answer(logger, (Exception,), **how)

        self._ack_in_order(log)
        for message in self._withheld:
            log(message.ack_log_error)
        if self.channel is not None:
            ignore(self.channel.close)

    def _settle(self, group: Sequence[Message]) -> None:
        for message in group:
            self._unsettled.pop(message.delivery_tag, None)

    def _ack_in_order(self, log: Callable[..., Any]) -> None:
        """Ack with one command what is withheld and older than all that is unsettled."""
        oldest: Any = next(iter(self._unsettled), math.inf)
        self._withheld.sort(key=attrgetter("delivery_tag"))
        ready = bisect_left(self._withheld, oldest, key=attrgetter("delivery_tag"))
        if ready:
            log(self._withheld[ready - 1].ack_log_error, multiple=True)
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
        places = self._places()
        for source in self._sources:
            source.most_withheld = source.batch * places
            source.channel = _raw(connection.channel())
            receive = partial(self._receive, source)
            source.consumer = Consumer(
                source.channel,
                [source.queue],
                on_message=receive,
                on_decode_error=_ignoring_the_error(receive),
                auto_declare=False,
                # A group in each place, as many withheld behind a slow one, and one to go next.
                prefetch_count=source.batch * (2 * places + 1),
            )
            source.consumer.consume()

    @property
    def busy(self) -> bool:
        """Whether groups are in the pool whose end is not known."""
        return self._in_pool > 0

    def stop(self, ignore: Callable[..., Any]) -> None:
        """Take no more: cancel the consumers and return what is waiting to its queue."""
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
        """Close the channels, once all that was in the pool is settled."""
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
        return GroupMessage(
            source.task,
            source.queue.name,
            group,
            on_ack=lambda log: self._settle(lambda: source.ack(group, log, closing=not self._open)),
            on_reject=lambda log: self._settle(lambda: source.reject(group, log)),
        )

    def _settle(self, answer: Callable[[], None]) -> None:
        """Free a place, and answer the broker if it can still be reached."""
        with self._lock:
            self._in_pool -= 1
            if self._connected:
                answer()
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


def _ignoring_the_error(receive: Callable[[Message], None]) -> Callable[[Message, Exception], None]:
    """Take what Kombu can't decode like the rest: the task refuses it by its bytes."""
    return lambda message, _error: receive(message)


def _raw(channel: Any) -> Any:
    """Make an AMQP channel give bodies as they came.

    A producer's headers must not make the main process decode them, nor inflate them: a small
    compressed body could fill its memory.
    """
    if hasattr(channel, "auto_decode"):
        channel.auto_decode = False
        message_to_python = channel.message_to_python

        def uncompressed(raw: Any) -> Any:
            (raw.properties.get("application_headers") or {}).pop("compression", None)
            return message_to_python(raw)

        channel.message_to_python = uncompressed
    return channel
