"""The ways in which metrics and logs break. Whatever is only told must change nothing under any of them."""

import io
import logging
import logging.config
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from unittest.mock import patch

import prometheus_client
import pytest
import structlog
from django.test import override_settings
from prometheus_client.multiprocess import MultiProcessCollector
from structlog.stdlib import ProcessorFormatter

from booking_platform import logs
from booking_platform.logs import StandardError
from booking_platform.messaging import metric_files
from booking_platform.standard_streams import Descriptor, text

COUNTING = (
    (prometheus_client.Counter, "inc"),
    (prometheus_client.Counter, "labels"),
    (prometheus_client.Histogram, "labels"),
)

Way = Callable[[ExitStack, Path], None]


class Unprintable:
    """A value that no log line can show."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no str")

    __repr__ = __str__


class RaisingHandler(logging.Handler):
    """A handler of somebody else's that breaks the rule that handlers raise nothing."""

    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("the log's collector is gone")


@contextmanager
def metrics_in(folder: Path) -> Iterator[None]:
    """Let this process write its metrics to another folder, which is looked at anew."""
    with override_settings(METRICS_DIR=folder):
        metric_files._failing.clear()  # what another test has broken
        look_again()
        try:
            yield
        finally:
            for file in metric_files.FILES.values():
                file.close()
    look_again()


def look_again() -> None:
    """Look at the metrics' files when something is counted next, as is done each second."""
    for file in metric_files.FILES.values():
        file.look_again()


def _folder_gone(stack: ExitStack, tmp: Path) -> None:
    stack.enter_context(metrics_in(tmp / "metrics"))
    prometheus_client.Counter("made_before", "", registry=None).inc()
    shutil.rmtree(tmp / "metrics")
    look_again()


def _folder_is_a_file(stack: ExitStack, tmp: Path) -> None:
    (tmp / "metrics").touch()
    stack.enter_context(metrics_in(tmp / "metrics"))


def _folder_can_not_be_made(stack: ExitStack, tmp: Path) -> None:
    (tmp / "file").touch()
    stack.enter_context(metrics_in(tmp / "file" / "metrics"))


def _folder_read_only(stack: ExitStack, tmp: Path) -> None:
    """A folder of the kernel's: nobody, root neither, can make a file there."""
    stack.enter_context(metrics_in(Path("/proc/self")))


def _files_cut_short(stack: ExitStack, tmp: Path) -> None:
    stack.enter_context(metrics_in(tmp / "metrics"))
    prometheus_client.Counter("made_before", "", registry=None).inc()
    for file in (tmp / "metrics").glob("*.db"):
        os.truncate(file, 0)


def _disk_full(stack: ExitStack, tmp: Path) -> None:
    stack.enter_context(metrics_in(full_disk(stack, tmp / "disk")))


def _counters_raise(stack: ExitStack, tmp: Path) -> None:
    error = OSError("no space left on device")
    for kind, method in COUNTING:
        stack.enter_context(patch.object(kind, method, side_effect=error))


def _a_log_handler_raises(stack: ExitStack, tmp: Path) -> None:
    root, handler = logging.getLogger(), RaisingHandler()
    root.addHandler(handler)
    stack.callback(root.removeHandler, handler)


def _no_line_can_be_formatted(stack: ExitStack, tmp: Path) -> None:
    stack.enter_context(structlog.contextvars.bound_contextvars(odd=Unprintable()))


def _stderr_closed(stack: ExitStack, tmp: Path) -> None:
    closed = (tmp / "stderr").open("w")
    closed.close()
    _write_logs_to(closed, stack)


def _stderr_full(stack: ExitStack, tmp: Path) -> None:
    _write_logs_to(os.fdopen(os.open("/dev/full", os.O_WRONLY), "w"), stack)


def _stderr_without_a_reader(stack: ExitStack, tmp: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    _write_logs_to(os.fdopen(writer, "w"), stack)


def _stderr_not_read(stack: ExitStack, tmp: Path) -> None:
    _reader, writer = stack.enter_context(full_pipe())
    _write_logs_to(text(Descriptor(writer, patience=0.01)), stack)


@contextmanager
def full_pipe() -> Iterator[tuple[int, int]]:
    """Return both ends of a pipe into which nothing more can be written."""
    reader, writer = os.pipe()
    filler = Descriptor(writer)
    with suppress(BlockingIOError):
        while filler.write(bytes(4096)):
            pass
    try:
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


def _write_logs_to(stream: IO[str], stack: ExitStack) -> None:
    for handler in standard_error():
        stack.callback(handler.setStream, handler.setStream(stream))
    stack.callback(_forget, stream)


def _forget(stream: IO[str]) -> None:
    """Close a stream without the lines that it still holds."""
    with suppress(OSError):
        stream.close()


def standard_error() -> list[StandardError]:
    return [one for one in logging.getLogger().handlers if isinstance(one, StandardError)]


def full_disk(stack: ExitStack, folder: Path) -> Path:
    """Mount a file system that has no room; skip the test where that is not allowed."""
    fill(small_disk(stack, folder))
    return folder


def small_disk(stack: ExitStack, folder: Path) -> Path:
    """Mount a file system of a megabyte; skip the test where that is not allowed."""
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    stack.callback(_unmount, folder)
    return folder


def fill(folder: Path) -> None:
    """Write to a disk until it is full; the file ``full`` has it all."""
    with suppress(OSError), (folder / "full").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", folder], check=True)


def counted_in(folder: Path) -> dict[tuple[str, ...], float]:
    """Return what prometheus_client reads of the counter of the test, by the values of its labels."""
    metrics: Any = MultiProcessCollector.merge([str(file) for file in folder.glob("*.db")])  # type: ignore[no-untyped-call]
    return {
        tuple(sample.labels.values()): sample.value
        for metric in metrics
        for sample in metric.samples
        if sample.name == "counted_total"
    }


WAYS: dict[str, Way] = {
    "the folder is gone": _folder_gone,
    "the folder is a file": _folder_is_a_file,
    "the folder can't be made": _folder_can_not_be_made,
    "the folder is read-only": _folder_read_only,
    "files are cut short": _files_cut_short,
    "the disk is full": _disk_full,
    "counters raise": _counters_raise,
    "a log handler raises": _a_log_handler_raises,
    "no line can be formatted": _no_line_can_be_formatted,
    "standard error is closed": _stderr_closed,
    "standard error is full": _stderr_full,
    "standard error has no reader": _stderr_without_a_reader,
    "standard error is not read": _stderr_not_read,
}


@contextmanager
def broken(way: str, tmp: Path) -> Iterator[None]:
    """Break metrics or logs in one way, for as long as a block runs."""
    with ExitStack() as stack:
        WAYS[way](stack, tmp)
        yield


@contextmanager
def log_to(stream: Any) -> Iterator[None]:
    """Let the log be written to a stream for as long as a block runs."""
    with ExitStack() as stack:
        for handler in standard_error():
            stack.callback(handler.setStream, handler.setStream(stream))
        yield


@contextmanager
def log_in_form(*, json: bool) -> Iterator[io.StringIO]:
    """Return what is logged while a block runs, in the form of production or of a terminal."""
    configured: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(logging.config, "dictConfig", configured.update)
        patched.setattr("structlog.configure", lambda **_: None)
        logs.configure({"json": json, "level": "INFO"})
    options = configured["formatters"]["structured"]
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(
        ProcessorFormatter(
            processors=options["processors"], foreign_pre_chain=options["foreign_pre_chain"]
        )
    )
    logging.root.addHandler(handler)
    try:
        yield written
    finally:
        logging.root.removeHandler(handler)
