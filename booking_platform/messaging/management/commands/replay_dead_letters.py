"""Send dead letters back to the queue that each came from."""

import getpass
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from booking_platform.messaging import dead_letters
from booking_platform.messaging.models import DeadLetter
from booking_platform.messaging.rules import REASONS


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("ids", nargs="*", type=int, metavar="ID", help="of dead letters")
        parser.add_argument("--all", action="store_true", help="all that are parked")
        parser.add_argument("--reason", choices=sorted(REASONS))
        parser.add_argument("--queue")
        parser.add_argument("--event-id")
        parser.add_argument("--why", default="", help="kept with the dead letter")
        parser.add_argument("--dry-run", action="store_true", help="only list them")

    def handle(self, *args: Any, **options: Any) -> None:
        failed = 0
        for dead_letter in self._chosen(options):
            line = f"{dead_letter.pk}: {dead_letter} ({dead_letter.reason})"
            if options["dry_run"]:
                self.stdout.write(f"would replay {line}")
                continue
            try:
                closed = dead_letters.replay(dead_letter, by=getpass.getuser(), why=options["why"])
            except dead_letters.NotReplayable as error:
                failed += 1
                self.stderr.write(f"not replayed {dead_letter.pk}: {error}")
                continue
            self.stdout.write(f"replayed {line}" + ("" if closed else ", and parked again"))
        if failed:
            raise CommandError(f"{failed} could not be replayed.")

    def _chosen(self, options: dict[str, Any]) -> list[DeadLetter]:
        filters = {name: options[name] for name in ("reason", "queue", "event_id") if options[name]}
        if not (options["ids"] or options["all"] or filters):
            raise CommandError("Say which: ids, --reason, --queue, --event-id or --all.")
        if options["ids"]:
            filters["pk__in"] = options["ids"]
            missing = set(options["ids"]) - set(
                DeadLetter.objects.filter(pk__in=options["ids"]).values_list("pk", flat=True)
            )
            if missing:
                raise CommandError(f"No dead letter has the id {min(missing)}.")
        else:
            filters["state"] = DeadLetter.State.PARKED
        chosen = list(DeadLetter.objects.filter(**filters).order_by("parked_at", "pk"))
        if not chosen:
            self.stdout.write("No dead letter is parked there.")
        return chosen
