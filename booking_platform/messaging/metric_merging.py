"""The files of processes that are gone, merged into one.

A pool replaces its processes (``--max-tasks-per-child``), each leaves its files, and a page reads them all: a
millisecond for each process that there ever was.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from booking_platform.messaging.metric_files import content_of, entries_of
from booking_platform.messaging.metric_page import USED

MANY = 20  # files of one kind; fewer are read in no time
KINDS = ("counter", "histogram")  # whose numbers are added up, whichever process they are of
NOBODY = "0"  # no process has that id


def merge(folder: Path) -> None:
    """Merge the files of processes that are gone, if there are many. What can't be read stays as it is.

    Only for a folder that the caller, its children, and nobody else write to; nobody may read it meanwhile.

    Raises:
        OSError: the merged file can't be written; nothing has changed.
    """
    for kind in KINDS:
        gone = [path for path in folder.glob(f"{kind}_*.db") if _is_gone(path)]
        if len(gone) >= MANY:
            _merge(folder / f"{kind}_{NOBODY}.db", gone)


def _merge(into: Path, gone: Iterable[Path]) -> None:
    numbers = _numbers(into) if into.exists() else {}
    if numbers is None:
        return
    merged = []
    for path in gone:
        its = _numbers(path)
        if its is not None:
            merged.append(path)
            for key, number in its.items():
                numbers[key] = numbers.get(key, 0.0) + number
    content, _ = content_of({key: (number, 0.0) for key, number in numbers.items()})
    draft = into.with_name(f".{into.name}.draft")
    draft.write_bytes(content)
    draft.rename(into)
    for path in merged:
        path.unlink()


def _numbers(path: Path) -> dict[str, float] | None:
    """Return what is in a file; None where it can't be read."""
    try:
        with path.open("rb") as file:
            [used] = USED.unpack(file.read(USED.size))
        if not 0 <= used <= path.stat().st_size:
            return None
        return dict(_checked(entries_of(path)))
    except Exception:  # whatever garbage may cause; the page tells of the file
        return None


def _checked(entries: Iterable[tuple[str, float]]) -> Iterator[tuple[str, float]]:
    for key, number in entries:
        _metric, _sample, labels, _help = json.loads(key)
        dict(labels)
        yield key, number


def _is_gone(path: Path) -> bool:
    pid = path.stem.rpartition("_")[2]
    if pid == NOBODY or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False
