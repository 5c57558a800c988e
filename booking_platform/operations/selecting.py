"""Which dead letters a list shows and a job is about: the same conditions for both."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from django.db.models import Q, QuerySet
from django.utils.text import smart_split, unescape_string_literal

from booking_platform.messaging import topology
from booking_platform.messaging.models import DeadLetter
from booking_platform.messaging.rules import CONSUMERS, REASONS, event_types
from booking_platform.operations.records import typed

OTHER = "other"  # a queue, or a type, that is none of ours: whoever publishes may name any
SEARCHED = ("event_id", "detail")

Letters = QuerySet[DeadLetter]


def known_types() -> list[str]:
    """Return the names of the types of events that consumers take."""
    return sorted({each.__name__ for each in event_types().values()})


def known_queues() -> list[str]:
    """Return the names of the queues whose letters can be replayed."""
    return [*sorted(CONSUMERS), topology.unroutable_queue().name]


def of_reason(letters: Letters, reason: str) -> Letters:
    return letters.filter(reason=reason)


def of_queue(letters: Letters, queue: str) -> Letters:
    """Return the letters of a queue, or of those that are none of ours."""
    if queue == OTHER:
        return letters.exclude(queue__in=known_queues())
    return letters.filter(queue=queue)


def of_type(letters: Letters, event_type: str) -> Letters:
    """Return the letters of a type of event, or of types that no consumer takes."""
    if event_type == OTHER:
        return letters.exclude(event_type__in=known_types())
    return letters.filter(event_type=event_type)


def going_to(queues: Collection[str]) -> Q:
    """Return the condition of letters that a replay sends to queues: theirs, and unroutable ones."""
    keys = {CONSUMERS[queue].routing_key for queue in queues}
    types = [each.__name__ for key, each in event_types().items() if key in keys]
    unroutable = Q(queue=topology.unroutable_queue().name, event_type__in=types)
    return Q(queue__in=queues) | unroutable


def with_words(letters: Letters, words: str) -> Letters:
    """Return the letters that hold each of the words in their event id or detail.

    Words in quotes are one; an escape that stands for a character which can't be seen is that character.
    """
    for word in smart_split(typed(words)):
        if word[0] in "\"'" and word[-1] == word[0] and len(word) > 1:
            word = unescape_string_literal(word)  # noqa: PLW2901
        found = Q(*((f"{field}__icontains", word) for field in SEARCHED), _connector=Q.OR)
        letters = letters.filter(found)
    return letters


CONDITIONS = {
    "reason": of_reason,
    "queue": of_queue,
    "event_type": of_type,
    "words": with_words,
}


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which open dead letters: these, or all that meet the conditions; empty: no condition."""

    reason: str = ""
    queue: str = ""
    event_type: str = ""
    words: str = ""
    pks: tuple[int, ...] = ()
    without: tuple[str, ...] = ()  # queues about whose letters whoever chose them may not decide

    @classmethod
    def stored(cls, columns: Mapping[str, Any]) -> "Selection":
        """Return a selection as ``as_json`` has stored it."""
        lists = {name: tuple(columns.get(name, ())) for name in ("pks", "without")}
        return cls(**{**columns, **lists})

    def as_json(self) -> dict[str, Any]:
        """Return what a job stores of it."""
        return {name: value for name, value in asdict(self).items() if value}

    def letters(self, state: DeadLetter.State = DeadLetter.State.PARKED) -> Letters:
        """Return the dead letters of a state that are meant: the open ones, unless another is named."""
        letters = DeadLetter.objects.filter(state=state)
        if self.pks:
            letters = letters.filter(pk__in=self.pks)
        for name, condition in CONDITIONS.items():
            if value := getattr(self, name):
                letters = condition(letters, value)
        if self.without:
            letters = letters.exclude(going_to(self.without))
        return letters.defer("body", "edited_body")

    def in_words(self) -> str:
        """Return in words which letters are meant."""
        return "; ".join(self._words()) or "all that wait for a person"

    def _words(self) -> Iterator[str]:
        if self.pks:
            yield f"{len(self.pks)} that {'was' if len(self.pks) == 1 else 'were'} chosen"
        if self.reason:
            known = REASONS.get(self.reason)
            yield f"reason: {known.meaning if known else self.reason}"
        if self.queue:
            yield f"queue: {'none of ours' if self.queue == OTHER else self.queue}"
        if self.event_type:
            yield f"type: {'none of ours' if self.event_type == OTHER else self.event_type}"
        if self.words:
            yield f"search: {self.words}"
        if self.without:
            yield f"without what goes to {', '.join(self.without)}"
