"""The read model of web shops: of each tour the newest numbers that were announced.

The greatest version is the newest, so that it does not matter in which order announcements come, how
often, or in which groups.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from django.db import models, transaction
from django.db.models import Exists, OuterRef

from booking_platform.contract.announcements import TourAvailabilityChanged
from booking_platform.contract.envelope import Event
from booking_platform.messaging import clock
from booking_platform.messaging.paging import in_pages
from booking_platform.messaging.rows import keep_newest, read
from booking_platform.messaging.rules import DIFFERS, Applied, Refused, Result
from catalog.models import Tour, TourAvailability

PAGE = 200  # tours in one transaction of ``refresh``, which locks them for a moment


class Outcome(models.TextChoices):
    """What an announcement did."""

    SHOWN = "availability_shown", "the newest of its tour: web shops show it"
    OUTDATED = "availability_outdated", "a newer one of its tour was known: no effect"
    KNOWN = "availability_known", "says again what was known: no effect"


class Numbers(NamedTuple):
    """The numbers of one tour. The names are those of the columns."""

    tour_id: int
    version: int
    capacity: int
    available: int


def apply(events: Sequence[Event]) -> list[Result]:
    """Keep the newest numbers of each tour, in the transaction of the caller.

    Two statements, for one event as for hundreds. No race can be lost: the first of them compares and
    writes each row at once, and from then on the rows are locked.
    """
    said = [numbers(event.payload) for event in events]
    now = clock.now()
    news = newest(said)
    rows = [each._asdict() | {"updated_at": now} for each in news]
    written = keep_newest(TourAvailability, rows, key="tour_id", version="version")
    kept = _kept(each.tour_id for each in news)
    results: list[Result] = []
    for each in said:
        results.append(judge(each, kept[each.tour_id], is_news=each.tour_id in written))
        if each == kept[each.tour_id]:
            written.discard(each.tour_id)  # who says it once more in this group repeats it
    return results


def numbers(payload: TourAvailabilityChanged) -> Numbers:
    return Numbers(payload.tour_id, payload.version, payload.capacity, payload.available)


def newest(said: Iterable[Numbers]) -> list[Numbers]:
    """Return the newest numbers of each tour, in the order of the tours; of equal ones the first."""
    found: dict[int, Numbers] = {}
    for each in said:
        if each.tour_id not in found or found[each.tour_id].version < each.version:
            found[each.tour_id] = each
    return [found[tour_id] for tour_id in sorted(found)]


def judge(said: Numbers, kept: Numbers, *, is_news: bool) -> Result:
    """Return the result of an announcement, by what is kept of its tour after its group was written."""
    if said.version < kept.version:
        return Applied(Outcome.OUTDATED)
    if said == kept:
        return Applied(Outcome.SHOWN if is_news else Outcome.KNOWN)
    detail = (
        f"payload.available is {said.available} of {said.capacity}: version {said.version} of tour "
        f"{said.tour_id} is known with {kept.available} of {kept.capacity}"
    )
    return Refused(DIFFERS, detail)


def _kept(tour_ids: Iterable[int]) -> dict[int, Numbers]:
    rows = read(TourAvailability, Numbers._fields, key="tour_id", values=tour_ids)
    return {row[0]: Numbers(*row) for row in rows}


def refresh() -> int:
    """Make the read model show the tours as they are; return how many of its rows were wrong.

    A row may have an older version than its tour: what gives a tour no other numbers is not announced.
    Each page of tours is locked while it is copied, so that no booking can make newer numbers meanwhile
    and have them overwritten. Rows of tours that are gone are deleted.
    """
    gone = TourAvailability.objects.filter(~Exists(Tour.objects.filter(pk=OuterRef("tour_id"))))
    wrong, _ = gone.delete()
    page: list[int] = []
    for (tour_id,) in in_pages(Tour.objects.values_list("pk"), PAGE):
        page.append(tour_id)
        if len(page) == PAGE:
            wrong += _refresh(page)
            page = []
    return wrong + _refresh(page)


@transaction.atomic
def _refresh(tour_ids: Sequence[int]) -> int:
    columns = ("id", "optimistic_lock_version", "capacity", "available_seats")
    tours = [Numbers(*row) for row in read(Tour, columns, key="id", values=tour_ids, lock=True)]
    kept = _kept(each.tour_id for each in tours)
    now = clock.now()
    wrong = [each for each in tours if _is_wrong(kept.get(each.tour_id), each)]
    TourAvailability.objects.bulk_create(
        [TourAvailability(**each._asdict(), updated_at=now) for each in wrong],
        update_conflicts=True,
        unique_fields=["tour"],
        update_fields=["version", "capacity", "available", "updated_at"],
    )
    return len(wrong)


def _is_wrong(kept: Numbers | None, tour: Numbers) -> bool:
    if kept is None or kept.version > tour.version:  # then nothing that is announced would be newer
        return True
    return (kept.capacity, kept.available) != (tour.capacity, tour.available)
