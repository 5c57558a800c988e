"""What is in the files of metrics, as Prometheus reads it, whatever is in their folder."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from stat import S_ISREG
from struct import Struct

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

log = structlog.get_logger(__name__)

USED = Struct("i")  # at the beginning of a file: how many bytes of it are used


class Shared(Collector):
    """The metrics in the files of all processes, and how many files are left out."""

    def __init__(self, files: Sequence[Path], left_out: int = 0) -> None:
        self._files, self._left_out = files, left_out

    def collect(self) -> Iterable[Metric]:
        yield from ProcessCollector(registry=None).collect()  # of the process that answers
        yield from MultiProcessCollector.merge(list(map(str, self._files)))  # type: ignore[no-untyped-call]
        yield GaugeMetricFamily(
            "metric_files_left_out",
            "Files of metrics that can't be read; what is in them is missing here.",
            self._left_out,
        )


_said: set[Path] = set()  # of which files it is said that they can't be read


def page(folder: Path) -> bytes:
    """Return the metrics in a folder as Prometheus reads them. Which files can't be read is said once."""
    there = _there(folder)
    files = [file for file in there if _seems_whole(file)]
    try:
        text = _text(files, len(there) - len(files))
        _said.difference_update(files)
        return text
    except Exception:
        files = [file for file in files if _can_be_shown(file)]
    try:
        return _text(files, len(there) - len(files))
    except Exception as error:  # one has changed meanwhile, or two contradict each other
        log.warning("The files of metrics can't be added up now", error=repr(error))
        return _text([], len(there))


def _there(folder: Path) -> list[Path]:
    try:
        there = sorted(file for file in folder.iterdir() if file.name.endswith(".db"))
    except OSError as error:
        _say_once(folder, error)
        return []
    _said.intersection_update(there)
    return there


def _seems_whole(path: Path) -> bool:
    """Return whether it is a file that is as long as it says; a pipe of that name would be waited for."""
    try:
        status = path.stat()
        if not S_ISREG(status.st_mode):
            raise ValueError("not a file")
        with path.open("rb") as file:
            [used] = USED.unpack(file.read(USED.size))
        if not 0 <= used <= status.st_size:
            raise ValueError("cut short, or no file of metrics")
    except FileNotFoundError:  # removed meanwhile
        return False
    except Exception as error:
        _say_once(path, error)
        return False
    return True


def _can_be_shown(file: Path) -> bool:
    try:
        _text([file])
    except Exception as error:
        _say_once(file, error)
        return False
    return True


def _say_once(path: Path, error: Exception) -> None:
    if path not in _said:
        _said.add(path)
        log.warning("Metrics can't be read: left out", file=str(path), error=repr(error))


def _text(files: Sequence[Path], left_out: int = 0) -> bytes:
    registry = CollectorRegistry()
    registry.register(Shared(files, left_out))
    return generate_latest(registry)
