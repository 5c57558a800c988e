"""A group of deliveries as one Celery message.

Celery's own task handler takes the group as it would take any message. Celery's signals, time
limits, ``inspect`` and warm shutdown therefore work as ever, and many events cost one request.
"""

from collections.abc import Callable, Sequence
from logging import Logger
from typing import Any, NamedTuple
from uuid import uuid4

from celery import Task
from celery.worker import state
from celery.worker.request import Request
from kombu.message import Message

REPLAY_HEADER = "x-replay-of"
KEPT_HEADERS = ("task", "x-death", REPLAY_HEADER)  # those that mean something here


class Delivery(NamedTuple):
    """What the pool is told of one message: its bytes, which only the task decodes."""

    body: bytes
    headers: dict[str, Any]


class GroupMessage:
    """A group, in the shape of a Kombu message.

    ``finish`` is called once: with True when the group is acknowledged, with False when it goes
    back to its queue.
    """

    # No content type: Celery hands the body to the pool as it is, unserialised.
    content_type = content_encoding = None

    def __init__(
        self, task: str, queue: str, deliveries: Sequence[Message], finish: Callable[[bool], None]
    ) -> None:
        group_id = str(uuid4())
        self._finish = finish
        self.delivery_tag = group_id
        self.properties = {"correlation_id": group_id, "priority": 0}
        self.delivery_info = {
            "exchange": "",
            "routing_key": queue,
            "redelivered": bool(deliveries[0].delivery_info.get("redelivered")),
        }
        self.headers = {
            "lang": "py",
            "task": task,
            "id": group_id,
            "root_id": group_id,
            "parent_id": None,
            "argsrepr": f"<{len(deliveries)} of {queue}>",
            "kwargsrepr": "{}",
        }
        self.body: Any = ([[_delivery(message) for message in deliveries]], {}, {})
        self.payload: Any = self.body

    def ack_log_error(self, logger: Logger, errors: Any, multiple: bool = False) -> None:
        self._finish(True)

    def reject_log_error(self, logger: Logger, errors: Any, requeue: bool = False) -> None:
        self._finish(False)


class GroupRequest(Request):
    """A request that is acknowledged by success only.

    Celery acknowledges what is revoked, terminated, expired or failed. Here all of that returns
    the deliveries to their queue, whose delivery limit ends what can't be processed.
    """

    def acknowledge(self) -> None:
        if self.id in state.successful_requests:
            super().acknowledge()
        else:
            self.reject()

    def reject(self, requeue: bool = True) -> None:
        super().reject(requeue=True)

    def info(self, safe: bool = False) -> Any:
        """Return the request as ``inspect`` shows it, without its arguments: they hold customers."""
        return super().info(safe=True)


class GroupTask(Task):  # type: ignore[type-arg]
    """A Celery task that takes a group. The group is acknowledged when the task has returned."""

    Request = GroupRequest  # type: ignore[assignment]
    acks_late = True
    reject_on_worker_lost = True
    acks_on_failure = acks_on_timeout = False
    ignore_result = True


def _delivery(message: Message) -> Delivery:
    body, headers = message.body, message.headers
    return Delivery(
        body.encode() if isinstance(body, str) else bytes(body or b""),
        {name: headers[name] for name in KEPT_HEADERS if name in headers} if headers else {},
    )
