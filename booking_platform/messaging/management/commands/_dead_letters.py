"""What the commands about dead letters share: which they are about, and what is said of each."""

import getpass
from argparse import ArgumentParser
from typing import Any, ClassVar

from django.core.management.base import BaseCommand, CommandError

from booking_platform.messaging.models import DeadLetter
from booking_platform.messaging.rules import REASONS


class NotDone(Exception):
    """A dead letter stays as it is; the message says why."""


class DeadLetterCommand(BaseCommand):
    """Chooses dead letters by id or by what they have in common, and decides about each."""

    verb: ClassVar[str]
    done: ClassVar[str]
    why_required: ClassVar[bool] = False

    def decide(self, dead_letter: DeadLetter, *, by: str, why: str) -> str:
        """Decide about one; return what is to be added to the line that says so.

        Raises:
            NotDone: it stays as it is.
        """
        raise NotImplementedError

    def confirmed(self, chosen: list[DeadLetter], options: dict[str, Any]) -> bool:
        """Return whether to go on with what was chosen."""
        return True

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("ids", nargs="*", type=int, metavar="ID", help="of dead letters")
        parser.add_argument("--all", action="store_true", help="all that are parked")
        parser.add_argument("--reason", choices=sorted(REASONS))
        parser.add_argument("--queue")
        parser.add_argument("--event-id")
        parser.add_argument(
            "--why", default="", required=self.why_required, help="kept with the dead letter"
        )
        parser.add_argument("--dry-run", action="store_true", help="only list them")

    def handle(self, *args: Any, **options: Any) -> None:
        why, chosen = options["why"].strip(), self._chosen(options)
        if self.why_required and not why:
            raise CommandError("--why is empty: say why, for those who look at it later.")
        if options["dry_run"]:
            for dead_letter in chosen:
                self.stdout.write(f"would {self.verb} {described(dead_letter)}")
        elif chosen and self.confirmed(chosen, options):
            self._decide_about(chosen, why)

    def _decide_about(self, chosen: list[DeadLetter], why: str) -> None:
        failed = 0
        for dead_letter in chosen:
            try:
                note = self.decide(dead_letter, by=getpass.getuser(), why=why)
            except NotDone as error:
                failed += 1
                self.stderr.write(f"not {self.done} {dead_letter.pk}: {error}")
                continue
            self.stdout.write(f"{self.done} {described(dead_letter)}{note}")
        if failed:
            raise CommandError(f"{failed} could not be {self.done}.")

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
        chosen = list(
            DeadLetter.objects.filter(**filters).defer("body").order_by("parked_at", "pk")
        )
        if not chosen:
            self.stdout.write("No dead letter is parked there.")
        return chosen


def described(dead_letter: DeadLetter) -> str:
    return f"{dead_letter.pk}: {dead_letter} ({dead_letter.reason})"
