"""A group of deliveries as one Celery message.

Celery's own task handler takes the group as it would take any message. Celery's signals, time
limits, ``inspect`` and warm shutdown therefore work as ever, and many events cost one request.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256
from logging import Logger
from typing import Any, NamedTuple
from uuid import uuid4

from celery import Task
from celery.worker import state
from celery.worker.request import Request
from kombu.message import Message

from booking_platform.contract import cloud_events, trace_context

REPLAY_HEADER = "x-replay-of"
LONGEST_FACT = 255  # letters of what a header says


class Delivery(NamedTuple):
    """What the pool is told of one message: its bytes, which only the task decodes, and flat facts.

    Whoever may publish writes the headers, so that nothing nested and nothing long of them is
    handed on: it could be read in the main process and not pickled there.
    """

    body: bytes
    size: int = 0  # bytes of the body before it was cut; 0: it is whole
    digest: str = ""  # SHA-256 of the body before it was cut
    redelivered: bool = False
    routing_key: str = ""
    task: str = ""  # the Celery task that a header names
    replay_of: str = ""  # the token of the dead letter that this claims to be the replay of
    died_in: str = ""  # the queue that gave it up last, as the broker or a producer says
    died_of: str = ""
    trace: str = ""  # of trace_context.py: valid, and so bounded

    @property
    def fingerprint(self) -> str:
        """Return the SHA-256 of the body, as it came."""
        return sha256(self.digest.encode() or self.body).hexdigest()

    @classmethod
    def of(cls, message: Message, *, most_bytes: int, kept_bytes: int) -> "Delivery":
        """Return what the pool is told of a message. A body over ``most_bytes`` is cut.

        What a CloudEvent has in its headers is put into its body, which is all that is kept of it.
        """
        headers = message.headers or {}
        body = cloud_events.structured(headers, _raw(message.body))
        size = max(len(body), message.delivery_info.get("size", 0))
        deaths = headers.get("x-death")
        newest = deaths[0] if isinstance(deaths, list) and deaths else None
        death: dict[str, Any] = newest if isinstance(newest, dict) else {}
        large = size > most_bytes
        return cls(
            body=body[:kept_bytes] if large else body,
            size=size if large else 0,
            digest=sha256(b"%d:%b" % (size, body)).hexdigest() if large else "",
            redelivered=bool(message.delivery_info.get("redelivered")),
            routing_key=_fact(message.delivery_info.get("routing_key")),
            task=(_fact(headers["task"]) or "?") if "task" in headers else "",
            replay_of=_fact(headers.get(REPLAY_HEADER)),
            died_in=_fact(death.get("queue")),
            died_of=_fact(death.get("reason")),
            trace=trace_context.of_headers(headers),
        )


def traced(delivery: Delivery) -> Delivery:
    """Return a delivery with the trace that its body names, where its headers have named none."""
    trace = delivery.trace or trace_context.of_body(delivery.body)
    return delivery if trace == delivery.trace else delivery._replace(trace=trace)


def is_group(events: object) -> bool:
    """Return whether a task was given a group from a queue; nobody else can send deliveries."""
    return isinstance(events, list) and bool(events) and isinstance(events[0], Delivery)


class GroupMessage:
    """A group, in the shape of a Kombu message.

    ``finish`` is called once: with True when the group is acknowledged, with False when it goes
    back to its queue.
    """

    # No content type: Celery hands the body to the pool as it is, unserialised.
    content_type = content_encoding = None

    def __init__(
        self, task: str, queue: str, deliveries: Sequence[Delivery], finish: Callable[[bool], None]
    ) -> None:
        group_id = str(uuid4())
        self._finish = finish
        self.delivery_tag = group_id
        self.properties = {"correlation_id": group_id, "priority": 0}
        self.delivery_info = {
            "exchange": "",
            "routing_key": queue,
            "redelivered": deliveries[0].redelivered,
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
        self.body: Any = ([list(deliveries)], {}, {})
        self.payload: Any = self.body

    def ack_log_error(self, logger: Logger, errors: Any, multiple: bool = False) -> None:
        self._finish(True)

    def reject_log_error(self, logger: Logger, errors: Any, requeue: bool = False) -> None:
        self._finish(False)


class GroupRequest(Request):
    """A request for a group or, where the task was called by hand, for a task message.

    Celery acknowledges what is revoked, terminated, expired or failed. A group goes back to its
    queue then. A task message is acknowledged whatever happens: nobody may send one that is done
    again without end.
    """

    def acknowledge(self) -> None:
        if self.id in state.successful_requests or not self._is_group:
            super().acknowledge()
        else:
            self.reject()

    def reject(self, requeue: bool = True) -> None:
        if self._is_group:
            super().reject(requeue=True)
        else:
            super().acknowledge()

    def info(self, safe: bool = False) -> Any:
        """Return the request as ``inspect`` shows it, without its arguments: they hold customers."""
        return super().info(safe=True)

    @property
    def _is_group(self) -> bool:
        return isinstance(self.message, GroupMessage)


class GroupTask(Task):  # type: ignore[type-arg]
    """A Celery task that takes a group. The group is acknowledged when the task has returned."""

    Request = GroupRequest  # type: ignore[assignment]
    acks_late = True
    reject_on_worker_lost = True
    acks_on_failure = acks_on_timeout = False
    ignore_result = True

    def apply_async(self, *args: Any, **options: Any) -> Any:
        """Send a task message that does not show its events in headers and logs: they hold customers."""
        return super().apply_async(*args, **{"argsrepr": "<events>", "kwargsrepr": "{}"} | options)


def _raw(body: object) -> bytes:
    if isinstance(body, str):
        return body.encode(errors="surrogatepass")
    return bytes(body or b"")  # type: ignore[call-overload,no-any-return]


def _fact(value: object) -> str:
    return value[:LONGEST_FACT] if isinstance(value, str) else ""
