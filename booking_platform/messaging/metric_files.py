"""The files through which the processes of one machine share their metrics.

Each process has one file for each type of metric, in the format that prometheus_client's
``MultiProcessCollector`` reads. prometheus_client itself maps these files into memory: an error of the
disk, or a file that somebody cuts short, then ends the process with SIGBUS, and a folder that is gone
raises an error in the code that counts. Here the numbers live in the memory of the process, and each
change is written to the file with one system call. An error of that call is said once and changes
nothing else: counting goes on in memory, and the file gets all the numbers when it can be written again.
"""

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from struct import Struct, pack
from typing import Any

import structlog
from celery import bootsteps
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from booking_platform import environment

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0  # between looks whether the file is in its place, and between tries to make it

_HEADER = Struct("i4x")  # how many bytes of the file are used
_NUMBERS = Struct("dd")  # value and timestamp

_lock = threading.RLock()  # one for all: what it guards takes microseconds


class Value:
    """One number of a metric, as prometheus_client asks for it. No method raises an error of the disk."""

    _multiprocess = True

    def __init__(self, typ: str, *described: Any, multiprocess_mode: str = "", **_: Any) -> None:
        """``described`` are the names of metric and sample, names and values of labels, and the help."""
        self.key = mmap_key(*described)
        self.number = self.timestamp = 0.0
        kind = f"{typ}_{multiprocess_mode}" if typ == "gauge" else typ
        with _lock:
            self._file = FILES.setdefault(kind, MetricFile(kind))
            self._file.add(self)

    def inc(self, amount: float) -> None:
        with _lock:
            self.number += amount
            self.timestamp = 0.0
            self._file.write(self)

    def set(self, value: float, timestamp: float | None = None) -> None:
        with _lock:
            self.number, self.timestamp = value, timestamp or 0.0
            self._file.write(self)

    def get(self) -> float:
        return self.number

    def set_exemplar(self, exemplar: object) -> None:
        """Do nothing: the files have no place for exemplars."""

    def get_exemplar(self) -> None:
        return None


class MetricFile:
    """The file of this process for one type of metric."""

    clock = staticmethod(time.monotonic)

    def __init__(self, kind: str, folder: Path | None = None) -> None:
        self._kind, self._folder = kind, folder
        self._values: dict[str, Value] = {}  # by key
        self._earlier: dict[str, float] | None = None  # of a process that had the same id
        self._positions: dict[str, int] = {}  # in the file, of each key's numbers
        self._end = 0  # of what is used of the file
        self._fd: int | None = None
        self._look_at = 0.0

    @property
    def path(self) -> Path:
        return (self._folder or folder()) / f"{self._kind}_{os.getpid()}.db"

    def add(self, value: Value) -> None:
        """Add a value, which goes on from what is known of its key."""
        if known := self._values.get(value.key):
            value.number, value.timestamp = known.number, known.timestamp
        elif self._earlier:
            value.number = self._earlier.pop(value.key, 0.0)
        self._values[value.key] = value
        self.write(value)

    def write(self, value: Value) -> None:
        """Write a value to the file, if it can be written to now."""
        try:
            if self._is_open():
                self._put(value)
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:
            self.close()
            self._say_failing(error)

    def begin_anew(self) -> None:
        """Start at 0, with a file of its own: this process was just forked."""
        self.close()
        self._earlier, self._look_at = None, 0.0
        for value in self._values.values():
            value.number = value.timestamp = 0.0

    def close(self) -> None:
        """Close the file; it is made anew from memory when something is counted next."""
        if self._fd is not None:
            with suppress(OSError):
                os.close(self._fd)
            self._fd = None

    def leave(self) -> None:
        """Remove the file: this process goes on in another folder, with all that it has counted."""
        self.close()
        with suppress(OSError):
            self.path.unlink()
        self._earlier = None
        self.look_again()

    def look_again(self) -> None:
        """Look at the file when something is counted next, without waiting for the time to look."""
        self._look_at = 0.0

    def _is_open(self) -> bool:
        now = self.clock()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            if self._fd is None or not self._is_in_place(self._fd):
                self.close()
                self._open()
        return self._fd is not None

    def _is_in_place(self, fd: int) -> bool:
        """Return whether the open file is still the one of that name, and as long as it was."""
        opened = os.fstat(fd)
        try:
            return opened.st_size >= self._end and os.path.samestat(opened, os.stat(self.path))
        except FileNotFoundError:
            return False

    def _open(self) -> None:
        """Make the file from what is in memory; readers see the old one, or the whole new one."""
        path = self.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._earlier is None:
            self._earlier = _read(path)
            for key in self._values.keys() & self._earlier.keys():
                self._values[key].number += self._earlier.pop(key)
        draft = path.with_name(f".{path.name}.draft")
        fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            positions, end = self._fill(fd, self._earlier)
            draft.rename(path)
        except BaseException:
            os.close(fd)
            with suppress(OSError):
                draft.unlink()
            raise
        self._fd, self._positions, self._end = fd, positions, end
        self._say_working()

    def _fill(self, fd: int, earlier: dict[str, float]) -> tuple[dict[str, int], int]:
        numbers = {key: (number, 0.0) for key, number in earlier.items()}
        numbers |= {key: (one.number, one.timestamp) for key, one in self._values.items()}
        content, positions = content_of(numbers)
        _write_whole(fd, content, 0)
        return positions, len(content)

    def _put(self, value: Value) -> None:
        assert self._fd is not None
        position = self._positions.get(value.key)
        if position is not None:
            _write_whole(self._fd, _NUMBERS.pack(value.number, value.timestamp), position)
            return
        entry = _entry(value.key, value.number, value.timestamp)
        end = self._end + len(entry)
        _write_whole(self._fd, entry, self._end)
        _write_whole(self._fd, _HEADER.pack(end), 0)  # last: a reader never sees half of an entry
        self._positions[value.key], self._end = end - _NUMBERS.size, end

    def _say_failing(self, error: Exception) -> None:
        if not _failing:  # or it is said already, of another file of this process
            log.error(
                "Metrics can't be written to their file: counted in memory until they can",
                file=str(self.path),
                error=repr(error),
            )
        _failing.add(self)

    def _say_working(self) -> None:
        if self in _failing:
            _failing.remove(self)
            if not _failing:
                log.info("Metrics are written to their file again", file=str(self.path))


class MetricsFolder(bootsteps.Step):
    """Refuses to start a worker whose processes could not write their metrics.

    Raises:
        ImproperlyConfigured: the folder can't be written to.
    """

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        refuse_unwritable()


FILES: dict[str, MetricFile] = {}  # of this process, by type of metric
_failing: set[MetricFile] = set()  # those that can't be written now

_own: list[Path] = []  # the folder that this process and its children use instead of the common one


def folder() -> Path:
    """Return the folder of this process's files."""
    return _own[-1] if _own else settings.METRICS_DIR


def move_to(own: Path) -> None:
    """Use another folder from here on, in this process and in those that it forks.

    Raises:
        ImproperlyConfigured: it can't be written to.
    """
    environment.writable_folder("PROMETHEUS_MULTIPROC_DIR", own)
    with _lock:
        for file in FILES.values():
            file.leave()
        _own[:] = [own]


def install() -> None:
    """Replace the numbers of prometheus_client by ours: for our counters, and those of the middleware.

    https://prometheus.github.io/client_python/multiprocess/ names this way to choose how.
    """
    values.ValueClass = Value


def refuse_unwritable() -> None:
    """Check that metrics can be written, before a process starts that has to.

    Raises:
        ImproperlyConfigured: they can't; the message names the variable and the reason.
    """
    environment.writable_folder("PROMETHEUS_MULTIPROC_DIR", settings.METRICS_DIR)


def _begin_anew() -> None:
    global _lock  # noqa: PLW0603  (another thread may have held it when the process was forked)
    _lock = threading.RLock()
    _failing.clear()
    for file in FILES.values():
        file.begin_anew()


os.register_at_fork(after_in_child=_begin_anew)


def content_of(numbers: Mapping[str, tuple[float, float]]) -> tuple[bytes, dict[str, int]]:
    """Return the content of a file of values and timestamps, and where in it each key has them."""
    content, positions = bytearray(_HEADER.size), {}
    for key, pair in numbers.items():
        content += _entry(key, *pair)
        positions[key] = len(content) - _NUMBERS.size
    content[: _HEADER.size] = _HEADER.pack(len(content))
    return bytes(content), positions


def entries_of(path: Path) -> Iterator[tuple[str, float]]:
    """Yield keys and values of a file.

    Raises:
        Exception: any, where it is not there or holds garbage.
    """
    entries: Any = MmapedDict.read_all_values_from_file(str(path))  # type: ignore[no-untyped-call]
    for key, number, _timestamp, _position in entries:
        yield key, number


def _entry(key: str, number: float, timestamp: float) -> bytes:
    """Return an entry of a file: length and text of the key, spaces up to 8 bytes, the numbers."""
    text = key.encode()
    padded = text + b" " * (8 - (len(text) + 4) % 8)
    return pack("i", len(text)) + padded + _NUMBERS.pack(number, timestamp)


def _read(path: Path) -> dict[str, float]:
    """Return the numbers of an earlier process with the same id; none if they can't be read."""
    try:
        return dict(entries_of(path))
    except Exception:  # nothing, or garbage: this process writes the file anew
        return {}


def _write_whole(fd: int, content: bytes, position: int) -> None:
    """Write all of the content.

    Raises:
        OSError: there was no room for all of it, or the disk failed.
    """
    written = os.pwrite(fd, content, position)
    if written != len(content):
        raise OSError(f"only {written} of {len(content)} bytes were written: the disk is full")
