"""The ids that each log line has while a piece of work is done, whoever writes it: our code or a library.

They are bound to the thread that does the work, and to nothing when it is done.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded
from structlog.contextvars import (
    bind_contextvars,
    bound_contextvars,
    clear_contextvars,
    reset_contextvars,
)

from booking_platform.contract.envelope import Event

TOKENS = "bound_to_lines"  # on a task's request: how to undo what was bound for it


def begin_task(*, task: Any, task_id: str, **_: Any) -> None:
    """Bind name and id of a Celery task; the id of a group's task is the group's.

    A task that is called within another, or within a request, is told beside what is bound there.
    """
    if not task.request.is_eager:
        clear_contextvars()  # whatever the last task of this thread has left
    setattr(task.request, TOKENS, bind_contextvars(task=task.name, task_id=task_id))


def end_task(*, task: Any, **_: Any) -> None:
    """Undo what was bound for a Celery task."""
    reset_contextvars(**getattr(task.request, TOKENS, {}))


def group(consumer: str, deliveries: Sequence[object]) -> AbstractContextManager[None]:
    """Bind what the messages of a group have in common."""
    return bound_contextvars(consumer=consumer, group_size=len(deliveries))


def event(one: Event) -> AbstractContextManager[None]:
    """Bind the ids of an event. A payload that can't say what it is about must still be parked."""
    try:
        about = one.aggregate_id or None
    except SoftTimeLimitExceeded:
        raise
    except Exception:
        about = None
    return bound_contextvars(event_id=one.event_id, aggregate_id=about)


def alone(events: Sequence[Event | None]) -> AbstractContextManager[None]:
    """Bind the ids of an event where it is the only one, and could be read."""
    only = events[0] if len(events) == 1 else None
    return event(only) if only is not None else nullcontext()


def row(ids: Mapping[str, object]) -> AbstractContextManager[None]:
    """Bind what a row that is worked on is known by."""
    return bound_contextvars(**ids)
