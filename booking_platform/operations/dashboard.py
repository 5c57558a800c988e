"""The dashboard: what waits for a person now, and then how the platform does, each from its own part.

An app adds parts with ``@waits`` and ``@shows``, in a module that its ``AppConfig.ready`` imports. A person is
shown the parts of what they may view. A part that fails is said, and keeps no other from being shown.
Every statement of a part is bounded, by an index and by time: nobody waits for a page that counts
a large table.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar

import structlog
from django.contrib.admin.utils import quote
from django.db import Error, connection, transaction
from django.db.models import Model
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.timesince import timesince

from booking_platform.messaging import clock
from booking_platform.operations import tallies
from booking_platform.operations.tallies import By

log = structlog.get_logger(__name__)

HOURS = 24  # that the figures look back, the one that is running among them
MOST_COUNTED_NOW = 20_000  # events that are not tallied yet
STATEMENT_MS = 2_000  # for each statement of a part

Level = Literal["", "good", "attention", "bad"]


class NotKnown(Exception):
    """What a part needs to ask does not answer; the message says what, for the person who looks."""


# What parts say.


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Something that needs a person now."""

    what: str  # after its number: "refunds wait for a person"
    count: int
    since: datetime | None = None  # the oldest of them
    meaning: str  # what that means, or what to do, in a sentence
    url: str  # of the list behind it
    place: int | None = None  # among all that waits, where it is not that of its part


@dataclass(frozen=True, kw_only=True)
class Number:
    """A figure with the list behind it."""

    label: str
    value: object
    url: str = ""
    note: str = ""
    level: Level = ""


@dataclass(frozen=True, kw_only=True)
class Series:
    """The values of one thing by hour, each with the list behind it."""

    name: str
    values: Sequence[int]
    urls: Sequence[str]
    level: Level = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of a table: its name, its figures, and how much of it is full, of 100."""

    name: str
    url: str = ""
    cells: Sequence[object]
    share: int | None = None
    level: Level = ""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """What a part shows: figures, a chart by hour, a table."""

    note: str = ""
    numbers: Sequence[Number] = ()
    series: Sequence[Series] = ()
    columns: Sequence[str] = ()
    nothing: str = "There is nothing to list."  # what is said of a table without rows
    rows: Sequence[Row] = ()


# What a look at the dashboard is.


class Look:
    """One look at the dashboard: its moment, and what several parts need, read once."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.since = tallies.hour_of(now) - timedelta(hours=HOURS - 1)

    @property
    def hours(self) -> list[datetime]:
        """The beginnings of the hours that are shown."""
        return [self.since + tallies.HOUR * number for number in range(HOURS)]

    @cached_property
    def counted_until(self) -> datetime | None:
        """Up to when beat has counted outcomes."""
        return tallies.counted_until()

    @cached_property
    def counts(self) -> "Counts":
        """All that is counted by minute, in the hours that are shown."""
        counts = tallies.by_hour(self.since)
        start = max(self.counted_until or self.since, self.since)
        newest, all_of_them = tallies.outcomes_since(start, MOST_COUNTED_NOW)
        for by, count in newest.items():
            counts[by] = counts.get(by, 0) + count
        return Counts(counts, complete=all_of_them)


@dataclass(frozen=True)
class Counts:
    """Tallies by kind, hour, subject and word."""

    by: dict[By, int]
    complete: bool  # false: more has happened since they were counted than could be looked at

    def of(self, kind: str, subject: str) -> dict[tuple[str, datetime], int]:
        """Return what is counted of a subject, by word and hour."""
        return {
            (word, hour): count
            for (its_kind, hour, its_subject, word), count in self.by.items()
            if (its_kind, its_subject) == (kind, subject)
        }


# The registry.

T = TypeVar("T")
W = Callable[[Look], Iterable[Waiting]]
S = Callable[[Look], Panel]


@dataclass(frozen=True)
class Part(Generic[T]):
    """One part of the dashboard, for whoever has a permission."""

    title: str
    permission: str  # of Django: "app.codename"
    ask: Callable[[Look], T]
    place: int  # parts with a lower one come first


WAITS: dict[str, Part[list[Waiting]]] = {}  # by title
SHOWS: dict[str, Part[Panel]] = {}


def waits(title: str, permission: str, *, place: int) -> Callable[[W], W]:
    """Register a function that yields what waits for a person."""

    def registered(ask: W) -> W:
        WAITS[title] = Part(title, permission, lambda look: list(ask(look)), place)
        return ask

    return registered


def shows(title: str, permission: str, *, place: int) -> Callable[[S], S]:
    """Register a function that returns a panel of figures."""

    def registered(ask: S) -> S:
        SHOWS[title] = Part(title, permission, ask, place)
        return ask

    return registered


# The page.


@dataclass(frozen=True)
class Shown:
    """What came of one part: a panel, or why it is not known."""

    title: str
    panel: Panel = field(default_factory=Panel)
    problem: str = ""


@dataclass(frozen=True)
class Dashboard:
    """All that one person is shown."""

    at: datetime
    waiting: Sequence[Waiting]
    shown: Sequence[Shown]
    not_known: Sequence[str]  # of what may wait
    may_see: bool  # whether there is any part for this person

    @property
    def calm(self) -> bool:
        """Whether it is known that nothing waits."""
        return self.may_see and not self.waiting and not self.not_known


def look(user: Any) -> Dashboard:
    """Return what a person is shown now.

    Raises:
        django.db.Error: the database is away, and its time is not known either.
    """
    at = Look(clock.now())
    waiting: list[tuple[int, Waiting]] = []
    not_known: list[str] = []
    for wait in _for(user, WAITS):
        found, problem = _ask(wait, at, [])
        waiting += [(wait.place if each.place is None else each.place, each) for each in found]
        if problem:
            not_known.append(f"{wait.title}: {problem}")
    shown = []
    for show in _for(user, SHOWS):
        panel, problem = _ask(show, at, Panel())
        shown.append(Shown(show.title, panel, problem))
    may_see = bool(_for(user, WAITS) or shown)
    in_order = [each for _, each in sorted(waiting, key=lambda placed: placed[0])]
    return Dashboard(at.now, in_order, shown, not_known, may_see)


def _for(user: Any, parts: dict[str, Part[T]]) -> list[Part[T]]:
    seen = [part for part in parts.values() if user.has_perm(part.permission)]
    return sorted(seen, key=lambda part: part.place)


def _ask(part: Part[T], at: Look, otherwise: T) -> tuple[T, str]:
    """Return what a part says; otherwise why it is not known."""
    try:
        with _bounded():
            return part.ask(at), ""
    except NotKnown as why:
        return otherwise, str(why)
    except Error as error:
        log.warning("A part of the dashboard is not known", part=part.title, why=repr(error)[:500])
        return otherwise, f"the database did not answer in time ({type(error).__name__})"
    except Exception as error:
        log.exception("A bug: a part of the dashboard is not known", part=part.title)
        return otherwise, f"a bug, which the log tells of ({type(error).__name__})"


@contextmanager
def _bounded() -> Iterator[None]:
    """Bound the statements of a part more than those of the work: a person waits for them."""
    if (
        connection.vendor == "sqlite"
    ):  # it has no such limit, and a transaction would stop its writer
        yield
        return
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL statement_timeout = {STATEMENT_MS}")
        yield


# What several parts are made of.


def number(count: int, one: str, many: str) -> str:
    """Return what is said of so many of something."""
    return one if count == 1 else many


def age(since: datetime, now: datetime) -> str:
    """Return how long ago something was."""
    return "less than a minute" if now - since < tallies.MINUTE else timesince(since, now, depth=2)


def list_url(model: type[Model], **query: str | int) -> str:
    """Return the address of the admin's list of a model, filtered."""
    page = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    return f"{page}?{urlencode(query)}" if query else page


def stamp(moment: datetime) -> str:
    """Return a time as a list's filter reads it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def page_url(record: Model) -> str:
    """Return the address of the admin's page of a record."""
    meta = record._meta
    return reverse(f"admin:{meta.app_label}_{meta.model_name}_change", args=[quote(record.pk)])
