"""A group of deliveries as one Celery message.

Celery's own task handler takes the group as it would take any message, so that its signals, time
limits, ``inspect`` and warm shutdown go on working, and one request is paid for many events.
"""

from collections.abc import Callable, Sequence
from logging import Logger
from typing import Any, NamedTuple
from uuid import uuid4

import structlog
from amqp import method_framing
from celery.worker import state
from celery.worker.request import Request
from kombu.message import Message

log = structlog.get_logger(__name__)

REPLAY_HEADER = "x-replay-of"
KEPT_HEADERS = ("task", "x-death", REPLAY_HEADER)  # those that mean something here


class Delivery(NamedTuple):
    """What the pool is told of one message: its bytes, which only the task decodes."""

    body: bytes
    headers: dict[str, Any]


Log = Callable[..., None]  # calls an ack or a reject of Kombu's, and logs its error


class LenientMessage(method_framing.Message):
    """A message whose properties may be anything.

    py-amqp reads them in the worker's main process before any code of ours; text that is not
    UTF-8, a time out of range or tables nested without end would take it down, again and again.
    """

    def _load_properties(self, class_id: Any, buffer: Any, offset: int) -> Any:
        try:
            return super()._load_properties(class_id, buffer, offset)  # type: ignore[misc]
        except Exception as error:
            log.warning("A message's properties can't be read: taken without", error=repr(error))
            self.properties = {}
            return len(buffer)


method_framing.Message = LenientMessage  # type: ignore[misc]


class GroupMessage:
    """Answers Celery as one Kombu message; acks and rejects go to every delivery."""

    # No content type: Celery hands the body to the pool as it is, unserialised.
    content_type = content_encoding = None

    def __init__(
        self,
        task: str,
        queue: str,
        deliveries: Sequence[Message],
        *,
        on_ack: Callable[[Log], None],
        on_reject: Callable[[Log], None],
    ) -> None:
        group_id = str(uuid4())
        self._on_ack, self._on_reject = on_ack, on_reject
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
        self._on_ack(lambda answer, **how: answer(logger, errors, **how))

    def reject_log_error(self, logger: Logger, errors: Any, requeue: bool = False) -> None:
        self._on_reject(lambda answer, **how: answer(logger, errors, **how))


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
        """Describe the request for ``inspect``, without the customers' data in its arguments."""
        return super().info(safe=True)


def _delivery(message: Message) -> Delivery:
    body, headers = message.body, message.headers
    return Delivery(
        body.encode() if isinstance(body, str) else bytes(body or b""),
        {name: headers[name] for name in KEPT_HEADERS if name in headers} if headers else {},
    )
