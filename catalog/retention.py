"""How long the history of a tour's seats is kept."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import reduce
from itertools import islice
from operator import or_

import structlog
from django.conf import settings
from django.db.models import OuterRef, Q, Subquery

from booking_platform.messaging import clock
from booking_platform.messaging.batches import BATCH, paced
from booking_platform.messaging.paging import in_pages
from booking_platform.messaging.retention import part_of_cleanup
from catalog.models import SeatChange, Tour

log = structlog.get_logger(__name__)

TOURS_AT_ONCE = 200


@part_of_cleanup
def forget_seat_changes() -> int:
    """Delete changes of seats that are older than processed events are kept; return how many.

    The newest of each tour stays: it says since when the tour has the numbers that it has.
    """
    cutoff = clock.now() - settings.PROCESSED_EVENTS_RETENTION
    deleted = 0
    tours = (pk for (pk,) in in_pages(Tour.objects.values_list("pk"), BATCH))
    while some := list(islice(tours, TOURS_AT_ONCE)):
        for old in _old(some, cutoff):
            deleted += SeatChange.objects.filter(_up_to(old), changed_at__lt=cutoff).delete()[0]
    log.info("Cleanup: changes of seats deleted", deleted=deleted, older_than=cutoff.isoformat())
    return deleted


def _old(tours: Iterable[int], cutoff: datetime) -> Iterator[Sequence[tuple[int, int]]]:
    """Yield tours and versions of changes that may be deleted, in their order, until none is left."""
    of_tour = SeatChange.objects.filter(tour_id=OuterRef("tour_id")).order_by("-version")
    newest = Subquery(of_tour.values("version")[:1])
    old = SeatChange.objects.filter(tour_id__in=tours, changed_at__lt=cutoff, version__lt=newest)
    keys = old.order_by("tour_id", "version").values_list("tour_id", "version")
    return paced(lambda: list(keys[:BATCH]))


def _up_to(changes: Iterable[tuple[int, int]]) -> Q:
    """Return the condition of each tour's changes up to the last one that is given of it."""
    last = dict(changes)
    return reduce(or_, (Q(tour_id=tour, version__lte=version) for tour, version in last.items()))
