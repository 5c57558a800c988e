"""Celery's consumer, with the steps that the platform needs and no others.

Left out are the steps by which workers talk to each other (mingle, gossip) and the one for delayed
tasks, which declares 28 queues and kept a worker waiting for 17 s when a node of the cluster was down.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import uuid4

import structlog
from amqp.exceptions import AccessRefused
from celery import bootsteps
from celery.app.control import Control as CeleryControl
from celery.exceptions import WorkerShutdown
from celery.utils.log import get_logger
from celery.worker.consumer import Connection, Consumer, Control, Events, Heart, Tasks
from celery.worker.consumer.consumer import Evloop
from kombu import Queue
from kombu.pidbox import Mailbox

from booking_platform.messaging import broker, lenient_amqp, task_messages
from booking_platform.messaging.groups import GroupMessage
from booking_platform.messaging.task_messages import Malformed

log = structlog.get_logger(__name__)


class Topology(bootsteps.StartStopStep):
    """Declares exchanges and queues, before anything is consumed."""

    requires = (Connection,)

    def start(self, c: Any) -> None:
        try:
            broker.declare(c.connection)
        except broker.TopologyDiffers as error:
            log.critical(str(error))
            raise WorkerShutdown(os.EX_CONFIG) from error


class TaskMessages(Tasks):
    """Consumes Celery's own queues, which are quorum queues: those have no global prefetch count."""

    requires = (Topology,)

    def start(self, c: Any) -> None:
        super().start(c)
        lenient_amqp.take_raw_bodies(c.task_consumer.channel)

    def qos_global(self, c: Any) -> bool:
        return False


class RemoteControl(Control):
    """Answers ``celery inspect`` and ``control``, where the broker's user may declare a queue."""

    requires = (TaskMessages,)

    def __init__(self, c: Any, **kwargs: Any) -> None:
        super().__init__(c, **kwargs)
        box: Any = self.__dict__["box"]
        box.start = self.__dict__["start"] = partial(self._start_if_allowed, box, box.start)

    @staticmethod
    def _start_if_allowed(box: Any, start: Callable[[Any], None], c: Any) -> None:
        try:
            start(c)
            lenient_amqp.take_raw_bodies(box.node.channel)
        except AccessRefused as error:
            log.warning("No remote control: the broker refuses a queue", broker_says=str(error))


class OwnMailbox(Mailbox):
    """A mailbox whose queue nobody else has: not a second worker, nor a lost connection of this one."""

    def get_queue(self, hostname: str) -> Queue:
        return super().get_queue(f"{hostname}.{uuid4().hex}")


class PlatformControl(CeleryControl):
    Mailbox = OwnMailbox


_Consumer: Any = Consumer  # the stubs know little of it


class PlatformConsumer(_Consumer):
    class Blueprint(_Consumer.Blueprint):
        default_steps = (Connection, Topology, Events, Heart, TaskMessages, RemoteControl, Evloop)

    def __init__(
        self, *args: Any, task_events: bool = False, worker_options: Any = None, **kwargs: Any
    ) -> None:
        # A worker's events are for gossip, and for whoever asks for them with -E.
        quiet = {"without_gossip": True, "without_heartbeat": not task_events}
        options = dict(worker_options or {}) | quiet
        super().__init__(*args, task_events=task_events, worker_options=options, **kwargs)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        """Return Celery's handler of messages, which is given no task message that it can't take."""
        handle = super().create_task_handler(*args, **kwargs)

        def handle_checked(message: Any) -> Any:
            if isinstance(message, GroupMessage):
                return handle(message)
            try:
                task_messages.check(message)
                return handle(message)
            except self.connection_errors + self.channel_errors:
                raise
            except Malformed as malformed:
                why = str(malformed)
            except Exception as error:  # it must not end the worker, nor come again
                why = f"Celery failed on it: {error!r}"
            log.error("A task message is refused", why=why, queue=_queue(message))
            # Soon: an answer of Celery's own may be under way.
            return self.call_soon(self._refuse, message)

        return handle_checked

    def _refuse(self, message: Any) -> None:
        if not message.acknowledged:
            message.reject_log_error(get_logger(__name__), self.connection_errors)


def _queue(message: Any) -> str:
    return str(message.delivery_info.get("routing_key"))[:100]
