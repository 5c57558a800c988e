"""How long the history of a tour's seats is kept."""

import structlog
from django.conf import settings
from django.db.models import QuerySet, Subquery

from booking_platform.messaging import clock
from booking_platform.messaging.paging import in_pages
from booking_platform.messaging.retention import BATCH, part_of_cleanup
from catalog.models import SeatChange, Tour

log = structlog.get_logger(__name__)


@part_of_cleanup
def forget_seat_changes() -> int:
    """Delete changes of seats that are older than processed events are kept; return how many.

    The newest of each tour stays: it says since when the tour has the numbers that it has.
    """
    cutoff = clock.now() - settings.PROCESSED_EVENTS_RETENTION
    deleted = 0
    for (tour_id,) in in_pages(Tour.objects.values_list("pk"), BATCH):
        newest = _changes_of(tour_id).order_by("-version").values("version")[:1]
        old = _changes_of(tour_id).filter(changed_at__lt=cutoff, version__lt=Subquery(newest))
        while versions := list(old.order_by("version").values_list("version", flat=True)[:BATCH]):
            deleted += old.filter(version__lte=versions[-1]).delete()[0]
    log.info("Cleanup: changes of seats deleted", deleted=deleted, older_than=cutoff.isoformat())
    return deleted


def _changes_of(tour_id: int) -> QuerySet[SeatChange]:
    return SeatChange.objects.filter(tour_id=tour_id)
