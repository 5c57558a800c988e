"""Beat's schedule, which goes on where the clock of its machine was set back."""

from typing import Any

import structlog
from celery.beat import PersistentScheduler

log = structlog.get_logger(__name__)


class Scheduler(PersistentScheduler):
    """A schedule in which nothing has been run in the future.

    Celery's waits until its clock has come to when an entry ran last, plus the interval: after a
    day with a clock 40 days ahead, it would send no sweep for 40 days.
    """

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send what is due; return the seconds until the next look."""
        self._run_nothing_in_the_future()
        return float(super().tick(*args, **kwargs))

    def _run_nothing_in_the_future(self) -> None:
        for entry in self.schedule.values():
            now, before = entry.default_now(), entry.last_run_at
            if before is not None and before > now:
                log.warning(
                    "The clock was set back: counting from now", entry=entry.name,
                    last_run_at=before.isoformat(),
                )  # fmt: skip
                entry.last_run_at = now
                self._heap = None  # its order is by the clock, too: made anew by the tick
