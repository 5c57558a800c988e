"""What the notifications know of a booking: its e-mails, each attempt at them, and what people decided."""

from collections.abc import Iterator

from django.db.models import Q
from django.utils.timezone import localtime

from booking_platform.messaging import clock
from booking_platform.operations.booking_letters import missing
from booking_platform.operations.leased import next_attempt
from booking_platform.operations.leased_story import leased_chapter, step
from booking_platform.operations.records import exact, visible
from booking_platform.operations.stories import (
    MOST,
    Asked,
    Chapter,
    Entry,
    Kind,
    Level,
    Link,
    Meaning,
    Point,
    named,
    resolves,
    tells,
)
from notifications.addresses import UnusableAddress, mailbox
from notifications.attempts import SENT
from notifications.audits import QUEUE
from notifications.models import CancellationEmail

SEE = "notifications.view_cancellationemail"
STANDS = "E-mail"

State = CancellationEmail.State


@tells("e-mails", SEE)
def emails(asked: Asked) -> Chapter:
    """Return the e-mails about a booking. Their texts and addresses are on their own pages."""
    emails = CancellationEmail.objects.filter(booking_id=asked.booking)
    found = list(emails.defer("text_body", "html_body", "recipient").order_by()[: MOST + 1])
    chapter = leased_chapter(
        asked, found, Kind.EMAIL, calm=(SENT,), waits=lambda row: row.waits_for_person
    )
    for email in found[:MOST]:
        chapter.entries += _asked_for(email)
        chapter.points.append(_stands(email))
    chapter.points += missing(asked, QUEUE, about=STANDS, stored=bool(chapter.points))
    return chapter


def _asked_for(email: CancellationEmail) -> Iterator[Entry]:
    what = f"The customer is to be told by e-mail of the cancellation, {_step(email)}."
    detail = (f"By event {exact(email.event_id)}",) if email.event_id else ()
    yield Entry(email.created_at, Kind.EMAIL, what, detail=detail, links=_link(email))
    if email.forgotten_at is not None:
        what = "The address and the text of the e-mail were forgotten, as their time was over."
        yield Entry(email.forgotten_at, Kind.EMAIL, what, links=_link(email))


def _stands(email: CancellationEmail) -> Point:
    """Return whether the customer was told, and why not."""
    told, links, why = (
        f"Of the cancellation {_step(email)}",
        _link(email),
        visible(email.last_error),
    )
    if email.state == State.SENT:
        at = f" at {localtime(email.sent_at):%Y-%m-%d %H:%M %Z}" if email.sent_at else ""
        return Point(STANDS, f"{told}: told; a mail server took the e-mail{at}.", links=links)
    if email.settled:
        who = f"{visible(email.settled_by)} closed it: {visible(email.settlement)}"
        return Point(STANDS, f"{told}: {who}", links=links)
    if email.state == State.UNCERTAIN:
        what = f"{told}: the customer may have been told or not: {why or 'no answer came'}"
        then = "Ask the customer. Open the e-mail to have it sent again, or to mark it settled."
        return Point(STANDS, what, Level.PERSON, then, links)
    if email.state == State.FAILED:
        what = f"{told}: the customer was NOT told: {why or 'the reason was forgotten'}"
        then = "Correct the address with the customer, or open the e-mail to have it sent again."
        if email.forgotten:
            then = "Tell the customer in another way, and mark the e-mail settled."
        return Point(STANDS, what, Level.PERSON, then, links)
    following = next_attempt(email, clock.now()) or "and nothing more happens by itself"
    level = Level.ATTENTION if why else Level.NORMAL
    return Point(
        STANDS, f"{told}: not told yet, {following}{': ' + why if why else ''}", level, links=links
    )


def _step(email: CancellationEmail) -> str:
    return step(email.seats_remaining)


def _link(email: CancellationEmail) -> tuple[Link, ...]:
    return (Link(email, named(email)),)


@resolves("the Message-ID of an e-mail", permission=SEE)
def from_emails(term: str) -> Iterator[Meaning]:
    """Yield the bookings that have an e-mail of this booking, event or Message-ID."""
    whys = {
        "booking_id": "an e-mail is about the booking of this id",
        "event_id": "this event asked for its e-mail",
        "message_id": "this is the Message-ID of its e-mail",
    }
    either = Q(*((column, term) for column in whys), _connector=Q.OR)
    for email in CancellationEmail.objects.filter(either).order_by().only(*whys)[:MOST]:
        for column, why in whys.items():
            if getattr(email, column) == term:
                yield Meaning(email.booking_id, why)


@resolves("an e-mail address", permission=SEE, private=True)
def from_address(term: str) -> Iterator[Meaning]:
    """Yield the bookings whose e-mails go to this address, until it is forgotten."""
    if "@" not in term:
        return
    try:
        address = mailbox(term)
    except UnusableAddress:
        return
    to = CancellationEmail.objects.filter(recipient__iexact=address).order_by()
    for booking in to.values_list("booking_id", flat=True)[:MOST]:
        yield Meaning(booking, "an e-mail of this booking goes to the address")
