"""What attempts at calls to the world outside came to, for people who ask later.

The row of an attempt has only its last word. Here each is kept, written in the transaction that ends its
lease. Attempts in a row that came to the same are one entry, which counts them, so that a row which was
tried for a day has few. What is said must hold no address and no secret.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

import structlog
from django.db import Error, models, transaction
from django.db.models import F

from booking_platform.messaging import clock, outages
from booking_platform.messaging.batches import batches
from booking_platform.messaging.models import Attempt
from booking_platform.messaging.retention import part_of_cleanup

log = structlog.get_logger(__name__)

KEPT = timedelta(days=180)  # a customer may dispute a payment for so long
MOST = 50  # entries of one row
LONGEST = 1000  # characters of an answer


class Said(NamedTuple):
    """What an attempt came to, in words for the staff."""

    outcome: str
    answer: str = ""
    reference: str = ""  # by which who answered knows the answer


DECIDED = Said("No attempt: a person decided about it")


def note(
    row: models.Model, number: int, said: Said, at: datetime, *, announced: Iterable[str] = ()
) -> None:
    """Store what an attempt at a row came to, in the transaction of the caller, which has locked the row.

    The entry is for people alone: where the database will not have it, it is left out and logged.

    Raises:
        django.db.Error: the database is away.
    """
    try:
        with transaction.atomic():
            _store(row, number, said, at, announced)
    except Error as error:
        if outages.passes(error):
            raise
        log.exception("What an attempt came to can't be kept", what=row._meta.label, pk=row.pk)


def _store(
    row: models.Model, number: int, said: Said, at: datetime, announced: Iterable[str]
) -> None:
    said = Said(*map(_storable, said, (100, LONGEST, 255)))
    keys = " ".join(announced)
    entries = of(type(row), [row.pk]).order_by("-pk")
    newest = entries.first()
    if newest is not None and not keys and (newest.outcome, newest.answer) == said[:2]:
        again = {"times": F("times") + 1, "number": number, "reference": said.reference}
        entries.filter(pk=newest.pk).update(**again, last_at=at)
        return
    Attempt.objects.create(
        what=row._meta.label_lower,
        row=row.pk,
        number=number,
        announced=keys,
        first_at=at,
        last_at=at,
        **said._asdict(),
    )
    if old := list(entries.values_list("pk", flat=True)[MOST:]):
        Attempt.objects.filter(pk__in=old).delete()


def of(model: type[models.Model], pks: Iterable[int]) -> "models.QuerySet[Attempt]":
    """Return what attempts at these rows came to, in no order."""
    return Attempt.objects.filter(what=model._meta.label_lower, row__in=pks)


@part_of_cleanup
def forget_attempts() -> int:
    """Delete what attempts came to a long time ago; return how many entries."""
    old = Attempt.objects.filter(last_at__lt=clock.now() - KEPT)
    deleted = 0
    for pks in batches(old, by="last_at"):
        deleted += Attempt.objects.filter(pk__in=pks).delete()[0]
    log.info("Cleanup: attempts forgotten", deleted=deleted)
    return deleted


def _storable(text: str, longest: int) -> str:
    return text[:longest].replace("\0", "�").encode(errors="replace").decode()
