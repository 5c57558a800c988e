"""What payments show on the dashboard: refunds that wait for a person, and how far the others have come."""

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
from payments.audits import QUEUE
from payments.models import Refund

Status = Refund.Status

parked(
    QUEUE,
    one="cancellation whose refund was not asked for",
    many="cancellations whose refund was not asked for",
    place=11,  # beside the refunds: it is money that customers wait for
)

SHOWN: dict[str, Level] = {Status.COMPLETED: "good", Status.FAILED: "bad"}


@waits("Refunds", "payments.view_refund", place=10)
def waiting(_look: Look) -> Iterator[Waiting]:
    """Yield the refunds that wait for a person."""
    rows = Refund.objects.filter(needs_review=True).order_by()
    its = rows.aggregate(count=Count("pk"), since=Min("updated_at"))
    if its["count"]:
        yield Waiting(
            what=number(its["count"], "refund waits for a person", "refunds wait for a person"),
            count=its["count"],
            since=its["since"],
            meaning="These customers have not got their money: each says why, and what can be decided.",
            url=list_url(Refund, person="awaited"),
        )


@shows("Refunds", "payments.view_refund", place=40)
def refunds(look: Look) -> Panel:
    """Show what is in progress, and what became of the refunds asked for in the hours that are shown."""
    asked = Refund.objects.filter(created_at__gte=look.since).order_by()
    states = dict(asked.values_list("status").annotate(Count("pk")))
    in_progress = Refund.objects.filter(status=Status.IN_PROGRESS).count()
    since = {"created_at__gte": stamp(look.since)}
    return Panel(
        note="Those in progress are of any age; the others were asked for in the last 24 hours.",
        numbers=[
            Number(
                label="in progress",
                value=in_progress,
                url=list_url(Refund, status=Status.IN_PROGRESS),
            ),
            *(
                Number(
                    label=status.replace("_", " "),
                    value=states.get(status, 0),
                    url=list_url(Refund, status=status, **since),
                    level=level if states.get(status) else "",
                )
                for status, level in SHOWN.items()
            ),
        ],
    )
