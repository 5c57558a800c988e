"""Compare the refunds in the store with those that Stripe has, and print what differs.

Status 0: they agree. Status 1: they differ. Status 2: they could not be compared.
"""

import re
import sys
from argparse import ArgumentParser
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error
from django.utils import timezone

from booking_platform.messaging import clock
from payments import reconciliation
from payments.reconciliation import CouldNotCompare, Difference, UnderWay

# For so long a bank may give a refund back: https://docs.stripe.com/refunds#failed-refunds
DEFAULT = "30d"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)  # Stripe counts seconds since then
LATE = timedelta(hours=1)  # due for longer: no worker seems to be there
COULD_NOT_COMPARE = 2


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--since",
            default=DEFAULT,
            help="a day (2026-11-01), days before now (30d) or a time (2026-11-01T12:00:00+01:00); "
            "compares the refunds made since then, in the store or at Stripe; default: %(default)s",
        )
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="only print; otherwise what differs is taken up by a worker, who asks Stripe and "
            "stores the truth, or is put up for a person. Neither sends a refund",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            since = moment(options["since"], clock.now())
            differences = self._compare(since, dry_run=options["dry_run"])
        except CouldNotCompare as error:
            raise _could_not_compare(str(error)) from None
        except Error as error:
            raise _could_not_compare(f"The database could not be asked: {error}") from None
        if differences:
            sys.exit(1)

    def _compare(self, since: datetime, *, dry_run: bool) -> int:
        differences: list[Difference] = []
        under_way: dict[int, UnderWay] = {}
        for finding in reconciliation.findings(since):
            if isinstance(finding, UnderWay):
                under_way[finding.row.pk] = finding
                continue
            differences.append(finding)
            self.stdout.write(str(finding))
        start = timezone.localtime(since).isoformat(sep=" ", timespec="seconds")
        self.stdout.write(f"{_count(len(differences), 'difference')} since {start}.")
        self._say_what_is_under_way(under_way)
        if differences and not dry_run:
            due, for_a_person = reconciliation.mend(differences)
            self.stdout.write(
                f"{_count(due, 'refund')} of the store marked due: workers ask Stripe for the "
                f"truth. {_count(for_a_person, 'refund')} put up for a person."
            )
        return len(differences)

    def _say_what_is_under_way(self, under_way: dict[int, UnderWay]) -> None:
        if not under_way:
            return
        self.stdout.write(
            f"{_count(len(under_way), 'refund')} left out: workers have them in hand just now."
        )
        times = [each.row.lease_until or each.row.next_attempt_at for each in under_way.values()]
        longest = min(filter(None, times), default=None)
        if longest and clock.now() - longest > LATE:
            self.stdout.write(
                f"The longest has been due since {timezone.localtime(longest):%Y-%m-%d %H:%M}: is a "
                "worker serving the queue payments, and beat running?"
            )


def moment(text: str, now: datetime) -> datetime:
    """Return the time that ``--since`` means; without a zone it is in that of the settings.

    Raises:
        CommandError: it is no such time, or one at which there was nothing.
    """
    try:
        if days := re.fullmatch(r"([0-9]+)d", text):
            when = now - timedelta(days=int(days[1]))
        else:
            when = datetime.fromisoformat(text)
            when = timezone.make_aware(when) if timezone.is_naive(when) else when.astimezone(UTC)
    except (ValueError, OverflowError):
        raise _refused(
            f"--since is {text!r}: write a day (2026-11-01), a number of days (30d) or a time "
            "(2026-11-01T12:00:00+01:00)"
        ) from None
    if not EPOCH <= when < now:
        raise _refused(f"--since is {text!r}: it must be in the past, and after 1970")
    return when


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _could_not_compare(why: str) -> CommandError:
    said = reconciliation.printable(" ".join(why.split())).rstrip(".")
    return _refused(f"{said}. The comparison is not complete")


def _refused(why: str) -> CommandError:
    return CommandError(f"{why}.", returncode=COULD_NOT_COMPARE)
