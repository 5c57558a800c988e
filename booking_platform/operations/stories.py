"""What a story is made of: all that is known of one booking, as each app tells it.

An app tells what it knows with ``@tells``, and says which bookings a search term may mean with
``@resolves``, in a module that its ``AppConfig.ready`` imports. Each function makes a constant number of
queries that an index answers, and returns a bounded number of entries.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import NamedTuple

from django.core.exceptions import ImproperlyConfigured
from django.db.models import Model

from booking_platform.messaging.models import DeadLetter

MOST = 500  # entries of a story, and rows that one teller reads of a kind
LONGEST_TRANSACTION = timedelta(minutes=1)  # between what it stores first and its announcements


class Kind(StrEnum):
    """What an entry tells of."""

    EVENT = "event"
    SEATS = "seats"
    REFUND = "refund"
    EMAIL = "e-mail"
    DEAD_LETTER = "dead letter"
    ANNOUNCEMENT = "announcement"
    STAFF = "staff"


class Level(IntEnum):
    """How much of a person an entry asks for."""

    NORMAL = 0
    ATTENTION = 1  # worth a look
    PERSON = 2  # nothing more happens by itself


class Link(NamedTuple):
    """A record that has a page in the admin, and what the link to it says."""

    to: Model
    text: str


@dataclass(frozen=True)
class Entry:
    """One thing that happened."""

    at: datetime
    kind: Kind
    what: str  # a sentence for somebody who has never seen the system
    level: Level = Level.NORMAL
    detail: tuple[str, ...] = ()
    links: tuple[Link, ...] = ()


@dataclass(frozen=True)
class Decision:
    """What a record itself says of a person's decision about it: shown where its history lacks it."""

    record: Model
    by: str
    entry: Entry


@dataclass(frozen=True)
class Point:
    """One line of the headline: how one side of the booking stands now."""

    about: str
    what: str
    level: Level = Level.NORMAL
    then: str = ""  # what a person can do
    links: tuple[Link, ...] = ()


@dataclass
class Chapter:
    """What one teller knows of a booking."""

    points: list[Point] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    records: list[Model] = field(default_factory=list)  # whose history of decisions belongs here
    decisions: list[Decision] = field(default_factory=list)
    more: bool = False  # there is more than was read


@dataclass(frozen=True)
class Asked:
    """What a story is asked of."""

    booking: str
    waiting_since: datetime | None = None  # the oldest announcement that is not published yet
    letters: Sequence[DeadLetter] | None = (
        None  # its dead letters; None: the person may not see them
    )

    def announcement(self, at: datetime, key: str) -> Entry:
        """Return the entry of something that other systems are told of, under a routing key.

        Announcements are published in their order, so what is older than the oldest that waits has been.
        """
        waiting = self.waiting_since
        if waiting is None or at < waiting - LONGEST_TRANSACTION:
            return Entry(at, Kind.ANNOUNCEMENT, f"Other systems were told: {key}.")
        what = f"Other systems are to be told, if they are not yet: {key}."
        return Entry(at, Kind.ANNOUNCEMENT, what)


Tell = Callable[[Asked], Chapter]


class Teller(NamedTuple):
    """Who tells a part of the story, and which right a person needs to hear it."""

    name: str
    permission: str
    tell: Tell


class Meaning(NamedTuple):
    """A booking that a search term may mean, and why; or a record that names no booking."""

    booking: str
    why: str
    record: Model | None = None


Resolve = Callable[[str], Iterable[Meaning]]


class Resolver(NamedTuple):
    """Who says which bookings a term may mean, and which right a person needs to ask."""

    permission: str
    resolve: Resolve
    looks_for: tuple[str, ...]  # what it takes a term for, in words
    private: bool  # whether the term says something about a customer: it is in no address of a page


TELLERS: dict[str, Teller] = {}  # by name
RESOLVERS: list[Resolver] = []


def tells(name: str, permission: str) -> Callable[[Tell], Tell]:
    """Register a function that tells a part of a booking's story.

    Raises:
        ImproperlyConfigured: another teller has the name.
    """

    def registered(tell: Tell) -> Tell:
        if name in TELLERS:
            raise ImproperlyConfigured(f"The part {name!r} of the story is registered twice.")
        TELLERS[name] = Teller(name, permission, tell)
        return tell

    return registered


def resolves(
    *looks_for: str, permission: str, private: bool = False
) -> Callable[[Resolve], Resolve]:
    """Register a function that yields which bookings a search term may mean."""

    def registered(resolve: Resolve) -> Resolve:
        RESOLVERS.append(Resolver(permission, resolve, looks_for, private))
        return resolve

    return registered


def seats(number: int) -> str:
    """Return a number of seats in words."""
    return f"{number} seat{'' if number == 1 else 's'}"


def times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


def named(record: Model) -> str:
    """Return what staff call a record: its kind and its number."""
    return f"{record._meta.verbose_name} {record.pk}"
