"""Close dead letters for good, without effect on any booking."""

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from booking_platform.messaging import dead_letters
from booking_platform.messaging.management.commands._dead_letters import (
    DeadLetterCommand,
    NotDone,
    described,
)
from booking_platform.messaging.models import DeadLetter


class Command(DeadLetterCommand):
    help = __doc__
    verb, done, why_required = "discard", "discarded", True

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--yes", action="store_true", help="do not ask before it is done")

    def confirmed(self, chosen: list[DeadLetter], options: dict[str, Any]) -> bool:
        for dead_letter in chosen:
            self.stdout.write(f"will discard {described(dead_letter)}")
        if options["yes"]:
            return True
        if not sys.stdin.isatty():
            raise CommandError("Nothing was discarded: nobody can be asked here; add --yes.")
        return input(f"Discard {len(chosen)} for good? [y/N] ").strip().lower() in ("y", "yes")

    def decide(self, dead_letter: DeadLetter, *, by: str, why: str) -> str:
        if not dead_letters.discard(dead_letter, by=by, why=why):
            raise NotDone("it was closed already, or came again meanwhile")
        return ""
