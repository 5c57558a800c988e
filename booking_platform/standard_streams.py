"""Standard output and error of a worker and of beat: what can't be written there is dropped.

Celery and billiard print and flush there, and don't expect an error: a full disk under a redirected log,
or a log collector that is gone, would keep them from starting, and end a worker when it replaces a process
of its pool. Commands are left alone: who redirects their output wants to hear that it is not whole.
"""

import io
import os
import select
import sys
from contextlib import suppress
from stat import S_ISFIFO
from typing import Any

PATIENCE_SECONDS = 1.0  # that a line of the log waits for a reader who does not read
LAST_STANDARD = 2  # standard input, output and error are the descriptors 0, 1 and 2


class Descriptor(io.RawIOBase):
    """Writes to a standard stream through a descriptor of its own, and waits for no reader for long.

    Who reads the other end of a pipe may be stuck, and a write to a full pipe waits for as long. One that
    has made us wait in vain is not waited for again until it reads.
    """

    def __init__(self, fd: int, *, patience: float = 0.0) -> None:
        """Take a standard stream's descriptor, and the seconds that a write may wait."""
        super().__init__()
        self._standard, self._patience = fd, patience
        self._fd, self._opened = _of_its_own(fd), os.fstat(fd)
        self._waits = True

    def fileno(self) -> int:
        return self._standard

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        """Write all of the data.

        Raises:
            OSError: it can't be written, or nobody has read what is before it.
        """
        self._follow()
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                self._waits = self._waits and _can_be_written(self._fd, self._patience)
                if not self._waits:
                    raise
        self._waits = True
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._let_go()
        super().close()

    def _follow(self) -> None:
        """Open the stream anew where it has become another: servers do that when a log is rotated."""
        standard = os.fstat(self._standard)
        if not (os.path.samestat(standard, self._opened) and self._is_ours()):
            self._let_go()
            self._fd, self._opened = _of_its_own(self._standard), standard

    def _is_ours(self) -> bool:
        """Return whether nobody has closed the descriptor, whose number may be another file's then."""
        try:
            return os.path.samestat(os.fstat(self._fd), self._opened)
        except OSError:
            return False

    def _let_go(self) -> None:
        if self._is_ours():
            os.close(self._fd)


class Dropping(Descriptor):
    """Drops what can't be written."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def install(**_: Any) -> None:
    """Replace standard output and error of this process; it takes a signal of Celery."""
    _open_what_is_closed()
    _say_without_waiting()
    for fd, name in ((1, "stdout"), (2, "stderr")):
        current, original = getattr(sys, name), getattr(sys, f"__{name}__")
        if current is original:  # nobody else has replaced it
            with suppress(Exception):
                current.flush()
            stream = text(Dropping(fd), getattr(current, "encoding", None))
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def text(descriptor: Descriptor, encoding: str | None = None) -> io.TextIOWrapper:
    """Return a stream of text to a descriptor, which passes each line on when it is complete."""
    return io.TextIOWrapper(
        io.BufferedWriter(descriptor),
        encoding=encoding or "utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )


def _of_its_own(fd: int) -> int:
    """Return another descriptor of the same stream, which does not block where the stream is a pipe.

    The pipe is opened anew for that: others who write to it must not find that it does not block.
    """
    if S_ISFIFO(os.fstat(fd).st_mode):
        with suppress(OSError):  # there is no /proc, or the pipe is another user's
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return os.dup(fd)


def _can_be_written(fd: int, seconds: float) -> bool:
    """Wait until there is room in a pipe; return whether there is."""
    waiting = select.poll()
    waiting.register(fd, select.POLLOUT)
    return bool(waiting.poll(1000 * seconds))


def _say_without_waiting() -> None:
    """Let Celery say that it stops without waiting for a reader: it does so past all streams."""
    from celery.apps import worker  # which nobody but a worker and beat needs

    output = Dropping(1)

    def say(message: str, _stream: Any = None) -> None:
        output.write(f"\n{message}\n".encode(errors="backslashreplace"))

    worker.safe_say = say  # type: ignore[attr-defined]


def _open_what_is_closed() -> None:
    """Let no file or connection get the number of a closed standard stream, and what is printed there."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= LAST_STANDARD:
        pass
    os.close(fd)
