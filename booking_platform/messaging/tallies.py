"""What happened how often, counted in the memory of a process until it is stored for display.

Nothing rests on it: what a process has counted and not stored is lost when it is killed. What is counted
here leaves no row of its own, so that nothing else could tell how often it was.
"""

import threading
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple


class Counted(NamedTuple):
    """What is counted."""

    kind: str
    subject: str


DUPLICATES, CONFLICTS = "duplicates", "conflicts"  # by consumer; by what was written


class Tallies:
    """The counts of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[Counted] = Counter()

    def add(self, kind: str, subject: str, count: int = 1) -> None:
        """Count something that has happened."""
        with self._lock:
            self._counts[Counted(kind, subject)] += count

    def take(self) -> Mapping[Counted, int]:
        """Return what was counted since the last call; from now on it is the caller's to keep."""
        with self._lock:
            taken, self._counts = self._counts, Counter()
        return taken

    def give_back(self, taken: Mapping[Counted, int]) -> None:
        """Count once more what could not be stored."""
        with self._lock:
            self._counts.update(taken)


TALLIES = Tallies()
