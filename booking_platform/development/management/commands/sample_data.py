"""Fill the database with a day of bookings and every kind of trouble, to look at in the admin."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from booking_platform.development.management.commands.run import is_embedded


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--bookings", type=int, default=5_000, help="how many (5000)")
        parser.add_argument(
            "--seed", type=int, default=0, help="another seed makes other bookings (0)"
        )
        parser.add_argument(
            "--database-is-for-this",
            action="store_true",
            help="needed where DATABASE_URL names a database: invented bookings can't be told from others",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if not (is_embedded() or options["database_is_for_this"]):
            raise CommandError(
                "DATABASE_URL names a database, and invented bookings can't be told from others there. "
                "If it is for this, add --database-is-for-this."
            )
        if options["bookings"] < 1:
            raise CommandError(f"--bookings is {options['bookings']}: give 1 or more.")
        from booking_platform.development import sample_data

        made = sample_data.make(options["bookings"], seed=options["seed"])
        for what, number in made.items():
            self.stdout.write(f"{number:>9,} {what}")
