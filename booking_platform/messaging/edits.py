"""Dead letters that a person corrects: the edited event goes to the queue of the original, under its own id.

What is sent is stored before it is sent, with its event id, and never changes from then on. A crash in
between leaves the dead letter open: the same is sent again, which the inbox knows as a duplicate.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from uuid import uuid4

import structlog
from django.conf import settings
from django.db.models.functions import Length
from kombu import Producer

from booking_platform.contract.editing import (
    Change,
    as_draft,
    as_typed,
    changes,
    problems,
    under_new_id,
)
from booking_platform.contract.envelope import decode, identify
from booking_platform.messaging import broker, clock, dead_letters
from booking_platform.messaging.dead_letters import NotReplayable
from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from booking_platform.messaging.rules import Consumer

log = structlog.get_logger(__name__)

SHOWN = 20  # dead letters of one event
LARGEST = 256 * 1024  # bytes of a body that can be edited in a form

State = DeadLetter.State


class InvalidEdit(Exception):
    """What a person typed is no event that its consumers take; ``problems`` names each fault."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


class Edit(NamedTuple):
    """A valid event that a person made of a dead letter."""

    body: bytes
    event_id: str
    event_type: str
    consumers: list[Consumer]  # to which it goes
    changes: list[Change]  # against what came; the event id is among them

    @property
    def changed(self) -> list[Change]:
        """What the person changed: all but the event id, which is always new."""
        new = {f'"{self.event_id}"', f'"{self.event_id.rpartition("#")[2]}"'}  # a CloudEvent's
        return [each for each in self.changes if each.after not in new]


def check_editable(letter: DeadLetter) -> None:
    """Check that a dead letter can be edited.

    Raises:
        NotReplayable: it is closed, what came is not there in whole, it is too large for a form, or it
            was edited already and what was made of it may have been sent.
    """
    dead_letters.check_whole(letter)
    if letter.edit_begun:
        raise NotReplayable(
            f"{letter}: {letter.edited_by} has edited it, and what was made of it may have been sent. It can "
            "only be sent again as it is."
        )
    most = min(LARGEST, settings.EVENT_MAX_BYTES)
    size = DeadLetter.objects.filter(pk=letter.pk).values_list(Length("body"), flat=True).get() or 0
    if size > most:
        raise NotReplayable(
            f"{letter} has {size:,} bytes: at most {most:,} can be edited. The producer must publish it anew."
        )


def draft(letter: DeadLetter) -> str:
    """Return what came as a text to edit.

    Raises:
        NotReplayable: as ``check_editable``.
    """
    check_editable(letter)
    return as_draft(bytes(letter.body))


def examine(letter: DeadLetter, text: str) -> Edit:
    """Return the event that a person made of a dead letter, under an event id of its own.

    The id follows from the original and from the content: the same edit has the same id, also where the
    original was parked once more.

    Raises:
        InvalidEdit: a consumer would refuse it.
        NotReplayable: as ``check_editable``, or it belongs nowhere.
    """
    check_editable(letter)
    body = as_typed(text)
    most = min(LARGEST, settings.EVENT_MAX_BYTES)
    if len(body) > most:
        raise InvalidEdit([f"{len(body):,} bytes: at most {most:,} are sent"])
    event_type = identify(body)[1]
    dead_letters.way_back(letter, event_type)
    consumers = dead_letters.consumers_of(letter, event_type)
    if found := _problems(body, consumers):
        raise InvalidEdit(found)
    body = under_new_id(body, letter.queue, letter.event_id, letter.fingerprint)
    if found := _problems(body, consumers):  # with its new id, which may be too long for its source
        raise InvalidEdit(found)
    event = decode(body, consumers[0].payload, now=clock.now(), uses=consumers[0].uses)
    its_changes = changes(bytes(letter.body), body)
    return Edit(body, event.event_id, event.event_type, consumers, its_changes)


def _problems(body: bytes, consumers: Sequence[Consumer]) -> list[str]:
    """Return what any of the consumers would refuse, each problem once."""
    now = clock.now()
    found: dict[str, None] = {}
    for consumer in consumers:
        found |= dict.fromkeys(problems(body, consumer.payload, now=now, uses=consumer.uses))
    return list(found)


def doubts(letter: DeadLetter) -> list[str]:
    """Return why the original may have taken effect, so that an edited one would be a second effect."""
    return list(_doubts(letter))


def _doubts(letter: DeadLetter) -> Iterator[str]:
    if letter.event_id:
        yield from _known_of(letter)
    if letter.replay_token and not letter.edit_begun:
        yield (
            "A replay of the original was begun before and not finished. It may be in the queue, and "
            "applied as well."
        )


def _known_of(letter: DeadLetter) -> Iterator[str]:
    """Yield what became of the same event before."""
    queues = [each.queue for each in dead_letters.consumers_of(letter)]
    for event in ProcessedEvent.objects.filter(event_id=letter.event_id, consumer__in=queues):
        yield (
            f"An event of this id was applied by {event.consumer} on {event.processed_at:%Y-%m-%d %H:%M} "
            f"UTC ({event.outcome}). What you send now is applied as well."
        )
    same = DeadLetter.objects.filter(event_id=letter.event_id, queue=letter.queue)
    edited = same.exclude(pk=letter.pk).exclude(edited_event_id=None)
    sent = edited.order_by("edited_event_id").values_list("edited_by", "edited_event_id")
    for by, event_id in sent.distinct()[:SHOWN]:
        yield (
            f"The same event came before, and {by} has edited it: it was sent as {event_id}. What you send "
            "now is applied as well, unless it is the same."
        )


def send_edited(letter: DeadLetter, edit: Edit, *, by: str, why: str) -> bool:
    """Send an edited event to where the original came from, and close the dead letter.

    It is stored with its event id first, then published and confirmed, then the letter is closed. Where
    the process dies in between, the letter stays open, and ``send_again`` sends the same. Return false if
    it came again before it could be closed; it stays open then, too.

    Raises:
        NotReplayable: somebody else has replayed, edited or closed it since it was read.
    """
    with broker.producer() as producer:  # first: while the broker is away nothing is decided
        _begin(letter, edit, by=by)
        return _send(letter, edit.body, edit.event_type, producer, by=by, why=why)


def send_again(letter: DeadLetter, *, by: str, why: str) -> bool:
    """Send what was made of a dead letter once more, under the same id, and close the letter.

    Raises:
        NotReplayable: it is closed, or was not edited.
    """
    if letter.state != State.PARKED or not letter.edit_begun:
        raise NotReplayable(f"{letter}: there is nothing to send again")
    body = bytes(letter.edited_body or b"")
    with broker.producer() as producer:
        return _send(letter, body, type_of(letter), producer, by=by, why=why)


def _begin(letter: DeadLetter, edit: Edit, *, by: str) -> None:
    """Store what is to be sent, if the letter is as it was read."""
    columns = {
        "edited_event_id": edit.event_id,
        "edited_body": edit.body,
        "edited_by": by,
        "edited_at": clock.now(),
        "replay_token": uuid4().hex,
    }
    as_read = DeadLetter.objects.filter(
        pk=letter.pk,
        state=State.PARKED,
        attempts=letter.attempts,
        replay_token=letter.replay_token,
        edited_event_id__isnull=True,
    )
    if not as_read.update(**columns):
        raise NotReplayable(
            f"{letter}: it came again, or somebody else has replayed, edited or closed it, since you read it"
        )
    for name, value in columns.items():
        setattr(letter, name, value)


def _send(
    letter: DeadLetter, body: bytes, event_type: str, producer: Producer, *, by: str, why: str
) -> bool:
    publish = dead_letters.way_back(letter, event_type)
    publish(producer, body, headers=dead_letters.headers_of(letter, letter.replay_token))
    closed = letter.resolve(State.EDITED, by=by, why=why)
    log.info(
        "Dead letter replayed, edited",
        dead_letter=letter.pk,
        queue=letter.queue,
        event_id=letter.event_id,
        edited_event_id=letter.edited_event_id,
        by=by,
    )
    return closed


def type_of(letter: DeadLetter) -> str:
    """Return the type of the event that a person made of a letter; empty if none did."""
    return identify(bytes(letter.edited_body or b""))[1]


def changed(letter: DeadLetter) -> list[Change]:
    """Return what a person changed in what came, beside the event id."""
    body, event_id = bytes(letter.edited_body or b""), letter.edited_event_id or ""
    its_changes = changes(bytes(letter.body), body)
    return Edit(body, event_id, letter.event_type, [], its_changes).changed


def of_the_same_event(letter: DeadLetter) -> list[DeadLetter]:
    """Return other dead letters of the same event id: of other consumers, and from before."""
    if not letter.event_id:
        return []
    found = DeadLetter.objects.filter(event_id=letter.event_id).exclude(pk=letter.pk)
    return list(found.defer("body", "edited_body").order_by("-pk")[:SHOWN])


def made_of(letter: DeadLetter) -> list[DeadLetter]:
    """Return the dead letters that an edited event has become in its turn, without their bodies."""
    if letter.edited_event_id is None:
        return []
    found = DeadLetter.objects.filter(event_id=letter.edited_event_id)
    return list(found.defer("body", "edited_body").order_by("pk")[:SHOWN])


def origin(letter: DeadLetter) -> DeadLetter | None:
    """Return the dead letter from which a person made the event of this one; none: it is a producer's."""
    if not letter.event_id:
        return None
    found = DeadLetter.objects.filter(edited_event_id=letter.event_id)
    return found.defer("body", "edited_body").order_by("-pk").first()
