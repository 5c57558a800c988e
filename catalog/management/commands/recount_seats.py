"""Count the seats of tours anew from their reservations, and announce them.

For a tour that `manage.py audit` has found: somebody has written to the database past the platform. The
reservations are believed, and the seats sold outside the ledger stay as they are.
"""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from catalog import ledger


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("tour", nargs="+", type=int, help="the id of a tour")

    def handle(self, *args: Any, **options: Any) -> None:
        for tour_id in options["tour"]:
            change = ledger.recount(tour_id)
            if change is None:
                raise CommandError(f"There is no tour {tour_id}.")
            before, after = change
            self.stdout.write(
                f"Tour {tour_id}: {before.reserved} seats were reserved, now {after.reserved} are; "
                f"{after.available} are available."
            )
