"""What notifications show on the dashboard: e-mails that wait for a person, and how far the others have come."""

from collections.abc import Iterator

from django.db.models import Count, Min

from booking_platform.operations.dashboard import (
    Level,
    Look,
    Number,
    Panel,
    Waiting,
    list_url,
    number,
    shows,
    stamp,
    waits,
)
from booking_platform.operations.parked import parked
from notifications.audits import QUEUE
from notifications.models import WAITING_FOR_PERSON, CancellationEmail

State = CancellationEmail.State

SHOWN: dict[str, Level] = {
    State.PENDING: "",
    State.SENDING: "",
    State.SENT: "good",
    State.FAILED: "bad",
    State.UNCERTAIN: "attention",
}

parked(
    QUEUE,
    one="cancellation of which no e-mail tells",
    many="cancellations of which no e-mail tells",
)


@waits("E-mails", "notifications.view_cancellationemail", place=20)
def waiting(_look: Look) -> Iterator[Waiting]:
    """Yield the e-mails that wait for a person."""
    rows = CancellationEmail.objects.filter(WAITING_FOR_PERSON).order_by()
    its = rows.aggregate(count=Count("pk"), since=Min("updated_at"))
    if its["count"]:
        yield Waiting(
            what=number(its["count"], "e-mail waits for a person", "e-mails wait for a person"),
            count=its["count"],
            since=its["since"],
            meaning="These customers may not have been told of their cancellation: send again, or close.",
            url=list_url(CancellationEmail, person="awaited"),
        )


@shows("E-mails", "notifications.view_cancellationemail", place=50)
def emails(look: Look) -> Panel:
    """Show what became of the e-mails asked for in the hours that are shown."""
    asked = CancellationEmail.objects.filter(created_at__gte=look.since).order_by()
    states = dict(asked.values_list("state").annotate(Count("pk")))
    since = {"created_at__gte": stamp(look.since)}
    return Panel(
        note="Asked for in the last 24 hours.",
        numbers=[
            Number(
                label=str(state),
                value=states.get(state, 0),
                url=list_url(CancellationEmail, state__exact=state, **since),
                level=level if states.get(state) else "",
            )
            for state, level in SHOWN.items()
        ],
    )
