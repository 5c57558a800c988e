"""The deliveries of one broker connection: waiting, in the pool, answered.

While a place in the pool is free, what is waiting goes there at once. While the pool is busy,
deliveries gather. An idle worker therefore answers in milliseconds, and a loaded one works in large
groups, without a timer.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import structlog
from celery.platforms import EX_FAILURE
from celery.worker import state
from kombu import Connection
from kombu.message import Message
from vine import promise

from booking_platform.messaging.groups import GroupMessage
from booking_platform.messaging.sources import Source, Waiting

log = structlog.get_logger(__name__)

SHORTEST_PAUSE, LONGEST_PAUSE = 0.2, 30.0  # seconds before a group that failed goes back


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
        self._later: Callable[[float, Callable[[], None]], Any] = _in_a_thread
        self._failed: list[tuple[Source, list[Message]]] = []  # to go back after a pause

    def consume(self, connection: Connection, *, loop: Any) -> None:
        """Start consuming. ``loop`` is Celery's event loop (a hub), where there is one."""
        if loop is None:
            self._wake = _Dispatcher(self._dispatch).wake
        else:
            self._wake = partial(loop.call_soon, promise(self._dispatch))  # a set holds it: once
            self._later = loop.call_later
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
            failed, self._failed = self._failed, []
        for source, group in failed:
            source.return_failed(group, ignore)
        for source in self._sources:
            if source.consumer is not None:
                ignore(source.consumer.cancel)
                source.return_waiting(ignore)

    def forget(self) -> None:
        """The connection is lost: the broker redelivers, and old acks mean nothing."""
        with self._lock:
            self._open = self._connected = False
            self._failed.clear()
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
                if source.has_place and (group := source.next_group()):
                    self._in_pool += 1
                    source.in_pool += 1
                    return self._message(source, group)
            return None

    def _message(self, source: Source, group: Sequence[Waiting]) -> GroupMessage:
        messages = [each.message for each in group]
        deliveries = [each.delivery for each in group if each.delivery is not None]
        finish = partial(self._finish, source, messages)
        return GroupMessage(source.task_of(deliveries[0]), source.queue.name, deliveries, finish)

    def _finish(self, source: Source, group: list[Message], acknowledged: bool) -> None:
        """Free the place of a group, and answer the broker if it can still be reached."""
        with self._lock:
            self._in_pool -= 1
            source.in_pool -= 1
            if self._connected and acknowledged:
                source.failures = 0
                source.ack(group, closing=not self._open)
            elif self._connected:
                self._failed.append((source, group))
                self._return_later(source, group)
        self._wake()

    def _return_later(self, source: Source, group: list[Message]) -> None:
        """Return a group that was not done after a pause, which grows while nothing succeeds."""
        source.failures += 1
        if not self._open:
            self._return(source, group)
            return
        pause = min(LONGEST_PAUSE, SHORTEST_PAUSE * 2.0 ** min(source.failures - 1, 30))
        log.warning(
            "A group was not done: its messages go back to their queue after a pause",
            queue=source.queue.name,
            messages=len(group),
            failures_in_a_row=source.failures,
            pause_s=pause,
        )
        self._later(pause, partial(self._return, source, group))

    def _return(self, source: Source, group: list[Message]) -> None:
        with self._lock:
            if (source, group) in self._failed:
                self._failed.remove((source, group))
                source.reject(group)


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


def _in_a_thread(seconds: float, function: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, function)
    timer.daemon = True
    timer.start()
