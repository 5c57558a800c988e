"""Standard output and error of a worker and of beat: what can't be written there is dropped.

Celery and billiard print and flush there, and don't expect an error: a full disk under a redirected log,
or a log collector that is gone, would keep them from starting, and end a worker when it replaces a process
of its pool. Commands are left alone: who redirects their output wants to hear that it is not whole.
"""

import io
import os
import sys
from contextlib import suppress
from typing import Any

LAST_STANDARD = 2  # standard input, output and error are the descriptors 0, 1 and 2


class Dropping(io.RawIOBase):
    """Writes to a descriptor, and drops what can't be written."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        try:
            return os.write(self._fd, data)
        except OSError:
            return len(data)


def install(**_: Any) -> None:
    """Replace standard output and error of this process; it takes a signal of Celery."""
    _open_what_is_closed()
    for fd, name in ((1, "stdout"), (2, "stderr")):
        current, original = getattr(sys, name), getattr(sys, f"__{name}__")
        if current is original:  # nobody else has replaced it
            with suppress(Exception):
                current.flush()
            stream = _dropping(fd, getattr(current, "encoding", None))
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def _dropping(fd: int, encoding: str | None) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(Dropping(fd)),
        encoding=encoding or "utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )


def _open_what_is_closed() -> None:
    """Let no file or connection get the number of a closed standard stream, and what is printed there."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= LAST_STANDARD:
        pass
    os.close(fd)
