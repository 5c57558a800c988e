"""Delete what has outlived its retention, as beat has a worker do every night."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from booking_platform.messaging import retention


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--idle",
            action="store_true",
            help="you know that no event came for longer than RETENTION_DAYS, and that the clock of "
            "the database is right: delete all the same",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if not retention.clean_up(idle=options["idle"]):
            raise CommandError(f"Nothing was deleted: {retention.doubt()}. See --help for --idle.")
