"""Write the published contract (docs/contract/, and the tables of docs/events.md) from the types."""

from argparse import ArgumentParser
from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import msgspec
from django.apps import apps
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils.module_loading import module_has_submodule

from booking_platform.contract import announcements
from booking_platform.contract.announcing import ANNOUNCEMENTS, Announcement
from booking_platform.contract.artefacts import Contract, drifted, write
from booking_platform.contract.payloads import Undescribed
from booking_platform.contract.tables import Readers, Reasons
from booking_platform.messaging.rules import CONSUMERS, REASONS, event_types

__all__ = ["announcements"]  # imported for what they register


class Command(BaseCommand):
    help = __doc__
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--check", action="store_true", help="write nothing; fail if something would change"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            different = (drifted if options["check"] else write)(settings.BASE_DIR, contract())
        except Undescribed as error:
            raise CommandError(str(error)) from error
        if not options["check"]:
            self.stdout.write(
                "\n".join(f"{path} is written." for path in different) or "No change."
            )
        elif different:
            names = "".join(f"\n  {path}" for path in different)
            raise CommandError(f"Not what the types say:{names}\nRun `make contract`, and commit.")


def contract() -> Contract:
    """Return the contract of this installation: that of all its apps."""
    types = event_types().items()
    return Contract(
        events={key: each for key, each in types if not issubclass(each, Announcement)},
        announcements=dict(sorted(ANNOUNCEMENTS.items())),
        readers=_readers(),
        reasons=_reasons(),
    )


def _readers() -> Readers:
    """Return which apps read each field, by routing key and attribute."""
    readers: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for consumer in CONSUMERS.values():
        for field in msgspec.structs.fields(consumer.payload):
            if field.required or consumer.uses is None or field.name in consumer.uses:
                readers[consumer.routing_key][field.name].append(consumer.task_queue)
    return readers


def _reasons() -> Reasons:
    """Return the words of ``reason``: those of parked events, and those of each app's announcements."""
    parked = {code: REASONS[code].meaning for code in sorted(REASONS)}
    return {"`EventParked`, `EventDiscarded`": parked, **dict(_reasons_of_apps())}


def _reasons_of_apps() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield what each app has as ``REASONS`` in its module ``announcing``, where there is one."""
    for config in apps.get_app_configs():
        if config.module and module_has_submodule(config.module, "announcing"):
            module = import_module(f"{config.name}.announcing")
            if words := getattr(module, "REASONS", {}):
                yield config.label, dict(words)
