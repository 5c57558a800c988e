"""A worker that is told to stop does not wait for a broker that does not answer.

While RabbitMQ has an alarm (memory, disk) it reads nothing from a connection that has published, not
even an ack or the wish to close (https://www.rabbitmq.com/docs/alarms). Celery's connections publish:
events, and answers to remote control. py-amqp waits for each answer without end, so that a worker
would hang for as long as the alarm lasts.

Nor does it wait for processes of its pool that are gone: the pool that the embedded broker has shares one
queue among them, and who ended while he read there has its lock for ever.
"""

import signal
import socket
from contextlib import suppress
from functools import partial
from typing import Any

import billiard.pool
import structlog
from celery import signals
from kombu.transport import pyamqp

log = structlog.get_logger(__name__)

PATIENCE = 3.0  # seconds that a connection has for an answer, once the worker is told to stop
SLICE = 1.0  # seconds between looks whether it is

_begun = False  # set by a signal handler: it takes no lock


class PatientConnection(pyamqp.Connection):
    """A connection that waits for the broker as ever, until the worker is told to stop.

    From then on a connection without an answer is given up: what is sent on it is on its way, and
    what the broker has not read of it, it delivers again.
    """

    def drain_events(self, timeout: float | None = None) -> Any:
        if timeout is not None or self.read_timeout:  # it has a patience of its own
            return super().drain_events(timeout)
        while not _begun:
            with suppress(TimeoutError):
                return super().drain_events(SLICE)
        try:
            return super().drain_events(PATIENCE)
        except TimeoutError:
            log.warning("The broker does not answer: its connection is given up")
            with suppress(OSError):
                self.transport.sock.shutdown(socket.SHUT_RDWR)  # others who wait on it give up, too
            raise


def ends_in_time(beat: Any) -> Any:
    """Return a class of beat that, told to stop, waits for the broker as a worker does."""

    class Beat(beat):
        def install_sync_handler(self, service: Any) -> None:
            super().install_sync_handler(service)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, partial(_begin_and, signal.getsignal(number)))

    return Beat


def _begin_and(stop: Any, *signalled: Any) -> Any:
    begin()
    return stop(*signalled)


def begin(**_: Any) -> None:
    """Wait no longer than ``PATIENCE`` for the broker, in this process, from now on."""
    global _begun  # noqa: PLW0603  # one worker a process
    _begun = True


def _empty(queue: Any, filling: Any, _pool: Any) -> None:
    """Take out of a pool's queue what keeps the thread that fills it from ending, in billiard's stead.

    Where nobody gives back the lock of the queue's readers, there is nobody left who reads.
    """
    queue._rlock.acquire(True, PATIENCE)
    while filling.is_alive() and queue._reader.poll():
        queue._reader.recv()


def install() -> None:
    """Replace Kombu's connections by patient ones, which ``begin`` when a signal stops the worker."""
    pyamqp.Transport.Connection = PatientConnection
    billiard.pool.Pool._help_stuff_finish = staticmethod(_empty)  # type: ignore[attr-defined]
    signals.worker_shutting_down.connect(begin)
