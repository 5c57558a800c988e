"""The story of a booking: found by any id or an address, and put together in the order of time."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model, Q

from booking_platform.messaging import clock
from booking_platform.messaging.models import OutboxRow
from booking_platform.operations.booking_letters import SEE_LETTERS, letters_of
from booking_platform.operations.records import visible
from booking_platform.operations.stories import (
    LONGEST_TRANSACTION,
    MOST,
    RESOLVERS,
    TELLERS,
    Asked,
    Chapter,
    Decision,
    Entry,
    Kind,
    Level,
    Link,
    Meaning,
    Point,
    named,
)

LONGEST_TERM = 1000  # characters: an address has 254, an id 255, escaped up to four times as many
MOST_MEANINGS = 50
HELD_UP = timedelta(minutes=1)  # an announcement that waits for longer
TOLD = Kind.ANNOUNCEMENT
SAME_DECISION = timedelta(minutes=1)  # between what a record says of it, and its history

May = Callable[[str], bool]  # whether the person has a permission


@dataclass
class Story:
    """All that is known of a booking, and that the person may see."""

    booking: str
    points: list[Point] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    more: bool = False  # older entries are not among them
    hidden: list[str] = field(default_factory=list)  # parts that the person may not see

    @property
    def known(self) -> bool:
        return bool(self.entries)

    @property
    def level(self) -> Level:
        return max((point.level for point in self.points), default=Level.NORMAL)


def story_of(booking: str, may: May) -> Story:
    """Return the story of a booking, in a number of queries that does not depend on it."""
    letters = letters_of(booking) if may(SEE_LETTERS) else None
    asked = Asked(booking, _waiting_since(), letters)
    story = Story(booking)
    chapters: list[Chapter] = []
    for teller in TELLERS.values():
        if may(teller.permission):
            chapters.append(teller.tell(asked))
        else:
            story.hidden.append(teller.name)
    points = [point for chapter in chapters for point in chapter.points]
    points += _held_up(asked, chapters)
    story.points = sorted(points, key=lambda point: -point.level)
    entries = [entry for chapter in chapters for entry in chapter.entries]
    entries += _decided(chapters)
    entries.sort(key=lambda entry: entry.at)  # of one time they stay in the order of the chapters
    story.more = len(entries) > MOST or any(chapter.more for chapter in chapters)
    story.entries = entries[-MOST:]
    return story


def meanings_of(term: str, may: May, *, private: bool) -> list[Meaning]:
    """Return what a search term may mean, each booking once; more than can be shown: one more.

    ``private`` is whether the term may be taken for what says something about a customer.
    """
    found: dict[tuple[str, object], list[str]] = defaultdict(list)
    for meaning in _each_meaning(term, may, private=private):
        whys = found[meaning.booking, meaning.record]
        if meaning.why not in whys:
            whys.append(meaning.why)
        if len(found) > MOST_MEANINGS:
            break
    return [
        Meaning(booking, "; ".join(whys), record if isinstance(record, Model) else None)
        for (booking, record), whys in found.items()
    ]


def looked_for(may: May, *, private: bool) -> list[str]:
    """Return what a term of this person is taken for, in words."""
    asked = [each for each in RESOLVERS if may(each.permission) and (private or not each.private)]
    return list(dict.fromkeys(words for each in asked for words in each.looks_for))


def _each_meaning(term: str, may: May, *, private: bool) -> Iterator[Meaning]:
    if not term or len(term) > LONGEST_TERM or "\0" in term:
        return
    for resolver in RESOLVERS:
        if may(resolver.permission) and (private or not resolver.private):
            yield from resolver.resolve(term)


def _waiting_since() -> datetime | None:
    """Return since when the oldest announcement waits to be published."""
    return OutboxRow.waiting().order_by("pk").values_list("created_at", flat=True).first()


def _held_up(asked: Asked, chapters: Sequence[Chapter]) -> Iterator[Point]:
    """Yield that other systems have not been told of the newest, where that lasts."""
    since = asked.waiting_since
    if since is None or clock.now() - since < HELD_UP:
        return
    told = [each.at for chapter in chapters for each in chapter.entries if each.kind == TOLD]
    if any(at >= since - LONGEST_TRANSACTION for at in told):
        what = (
            f"Other systems have heard of nothing that happened since {since:%Y-%m-%d %H:%M} UTC."
        )
        then = "Nothing is lost. The broker may be away, or no worker runs: tell whoever runs them."
        yield Point("Announcements", what, Level.ATTENTION, then)


def _decided(chapters: Sequence[Chapter]) -> Iterator[Entry]:
    """Yield what people decided: from the history of the records, and else from the records themselves."""
    history = list(_history([record for chapter in chapters for record in chapter.records]))
    yield from (entry for _, entry in history)
    for decision in (each for chapter in chapters for each in chapter.decisions):
        if not any(_tells_of(decision, by, entry) for by, entry in history):
            yield decision.entry


def _tells_of(decision: Decision, by: str, entry: Entry) -> bool:
    """Return whether an entry of the history is about this decision."""
    near = abs(entry.at - decision.entry.at) < SAME_DECISION
    return near and by == decision.by and entry.links[0].to == decision.record


def _history(records: Sequence[Model]) -> Iterator[tuple[str, Entry]]:
    """Yield the admin's history of these records, and who made it; it is read in one query."""
    kinds = ContentType.objects.get_for_models(*{type(record) for record in records})
    by_key = {(kinds[type(record)].pk, str(record.pk)): record for record in records}
    if not by_key:
        return
    about = Q()
    for model, kind in kinds.items():
        pks = [str(record.pk) for record in records if type(record) is model]
        about |= Q(content_type=kind, object_id__in=pks)
    newest = LogEntry.objects.filter(about).select_related("user").order_by("-pk")
    for logged in newest[:MOST]:
        record = by_key[logged.content_type_id or 0, logged.object_id or ""]
        who, what = logged.user.get_username(), visible(logged.get_change_message())
        words = f"{visible(who)} decided about {named(record)}: {what}"
        links = (Link(record, named(record)),)
        yield who, Entry(logged.action_time, Kind.STAFF, words, links=links)
