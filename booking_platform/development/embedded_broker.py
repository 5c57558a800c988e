"""The broker that needs no server: Kombu's filesystem transport, made fit for several processes.

Kombu's own hands over files that their writer has only opened (4,756 of 5,000 messages arrived in
a trial of one writer and one reader), can lose a binding when two processes bind at once, gives
what a consumer returns to every queue of its routing key, and knows no delivery limit. This one
renames finished files into place, returns a message to the queue that it came from, counts
deliveries as a quorum queue does, and drops messages that have expired. An empty folder is listed again
only when it has changed: a hundred looks a second at each queue are cheap. What it can't do is survive
``kill -9``: a message is taken by deleting its file. Use RabbitMQ for real bookings.
"""

import hashlib
import os
from collections import defaultdict, deque
from pathlib import Path
from queue import Empty
from time import time_ns
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from kombu.transport import filesystem
from kombu.transport.filesystem import exchange_queue_t
from kombu.utils.json import dumps, loads

from booking_platform.contract.announcing import ANNOUNCEMENTS

DELIVERY_COUNT = "x-delivery-count"  # RabbitMQ's name for it
UNTIL = "-until-"  # in the name of a file: nanoseconds follow, after which it is not delivered
# Nanoseconds after which a later change of a folder has another time. Linux's file systems count in steps
# of 4 ms, and FAT in steps of 2 s.
SETTLED = 3_000_000_000


class Channel(filesystem.Channel):
    """A channel whose queues and exchanges are folders, and messages and bindings files in them."""

    connection: Any  # the Transport below

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._listed: defaultdict[str, deque[Path]] = defaultdict(deque)
        self._folders: dict[str, str] = {}
        self._empty_since: dict[
            str, int
        ] = {}  # the time of the folder's last change, where it has none

    # Bindings: one file each, so that two processes never write the same one differently.

    def get_table(self, exchange: str) -> list[Any]:
        return [
            exchange_queue_t(*loads(file.read_text()))
            for file in _finished(_folder(self.control_folder, exchange))
        ]

    def _lookup(self, exchange: str, routing_key: str, default: str | None = None) -> list[str]:
        """Return the queues of a message: the last stop where none takes an event."""
        found = list(super()._lookup(exchange, routing_key, default))
        last_stop = self.transport_options.get("last_stop")
        nobody_need_listen = not exchange or routing_key in ANNOUNCEMENTS
        return found or ([last_stop] if last_stop and not nobody_need_listen else [])

    def _queue_bind(self, exchange: str, *binding: str | None) -> None:
        _write(self._binding_file(exchange, *binding), dumps([part or "" for part in binding]))

    def _delete(
        self, queue: str, exchange: str, routing_key: str, pattern: str, *_: Any, **__: Any
    ) -> None:
        self._purge(queue)
        self._binding_file(exchange, routing_key, pattern, queue).unlink(missing_ok=True)

    def _binding_file(self, exchange: str, *binding: str | None) -> Path:
        text = dumps([part or "" for part in binding])
        return _folder(self.control_folder, exchange) / hashlib.sha256(text.encode()).hexdigest()

    # Messages.

    def _put(  # type: ignore[override]  # Kombu's own differ in this
        self, queue: str, payload: dict[str, Any], **_: Any
    ) -> None:
        folder, name = _folder(self.data_folder_out, queue), f"{time_ns():020}-{uuid4().hex}"
        expiration = str(payload["properties"].get("expiration"))  # milliseconds, as in AMQP
        # What would be a dead letter on RabbitMQ, an event, does not expire here.
        kept = "x-dead-letter-exchange" in self.connection.queue_arguments.get(queue, {})
        if expiration.isdecimal() and not kept:
            _remove_expired(folder)
            name += f"{UNTIL}{time_ns() + int(expiration) * 1_000_000}"
        _write(folder / name, dumps(payload))

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:
        waiting = self._listed[queue]
        if not waiting:
            waiting.extend(self._list(queue))
        while waiting:
            file = waiting.popleft()
            taken = file.with_name(f".{file.name}-taken")
            try:
                file.rename(taken)
            except FileNotFoundError:  # another process was faster
                continue
            if _expired(file):
                taken.unlink()
                continue
            payload: dict[str, Any] = loads(taken.read_text())
            taken.unlink()
            payload["properties"]["delivery_info"] |= {
                "queue": queue,
                "redelivered": DELIVERY_COUNT in payload["headers"],
            }
            return payload
        raise Empty

    def _list(self, queue: str) -> list[Path]:
        """Return the files of the messages in a queue, without listing a folder that is known to be empty."""
        folder = self._folders.get(queue) or str(_folder(self.data_folder_in, queue))
        self._folders[queue] = folder
        try:
            changed = os.stat(folder).st_mtime_ns
            if changed == self._empty_since.get(queue):
                return []
            files = _finished(Path(folder))
        except FileNotFoundError:  # deleted by a person
            del self._folders[queue]
            return []
        # A change just after the listing may have the same time as the one before it.
        if not files and time_ns() - changed > SETTLED:
            self._empty_since[queue] = changed
        return files

    def _restore(self, message: Any) -> None:
        """Return an unacknowledged message to its queue, or to the dead letters past the limit."""
        payload = message.serializable()
        queue = payload["properties"]["delivery_info"].pop("queue")
        count = payload["headers"].get(DELIVERY_COUNT, 0) + 1
        payload["headers"][DELIVERY_COUNT] = count
        arguments = self.connection.queue_arguments.get(queue, {})
        if count <= arguments.get("x-delivery-limit", count):
            self._put(queue, payload)
        else:
            payload["headers"]["x-death"] = [{"queue": queue, "reason": "delivery_limit"}]
            self._put_fanout(arguments["x-dead-letter-exchange"], payload, "")

    def queue_declare(self, queue: str | None = None, passive: bool = False, **kwargs: Any) -> Any:
        if not passive:
            self.connection.queue_arguments[queue] = kwargs.get("arguments") or {}
        return super().queue_declare(queue, passive, **kwargs)

    def _size(self, queue: str) -> int:
        return len(_finished(_folder(self.data_folder_in, queue)))

    def _purge(self, queue: str) -> int:
        files = _finished(_folder(self.data_folder_in, queue))
        for file in files:
            file.unlink(missing_ok=True)
        return len(files)


class Transport(filesystem.Transport):
    Channel = Channel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.queue_arguments: dict[str | None, dict[str, Any]] = {}
        super().__init__(*args, **kwargs)


def _folder(parent: str | Path, name: str) -> Path:
    # Names of dots alone are folders that exist; no quoted name is a lone per cent sign.
    quoted = quote(name, safe="") if name.strip(".") else "%2E" * len(name) or "%"
    folder = Path(parent) / quoted
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write(file: Path, text: str) -> None:
    unfinished = file.with_name(f".{file.name}-{uuid4().hex}")
    unfinished.write_text(text)
    unfinished.rename(file)


def _expired(file: Path) -> bool:
    _, _, until = file.name.partition(UNTIL)
    return bool(until) and int(until) <= time_ns()


def _remove_expired(folder: Path) -> None:
    """Remove what has expired in a folder, so that it holds no more where nobody reads from it."""
    for file in filter(_expired, _finished(folder)):
        file.unlink(missing_ok=True)


def _finished(folder: Path) -> list[Path]:
    return [folder / name for name in sorted(os.listdir(folder)) if not name.startswith(".")]
