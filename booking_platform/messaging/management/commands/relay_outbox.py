"""Publish what waits in the outbox, as the workers do by themselves, until nothing waits."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from booking_platform.messaging import outbox, relaying
from booking_platform.messaging.broker import UNREACHABLE


class Command(BaseCommand):
    help = __doc__

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            published = relaying.relay_now()
        except (outbox.BrokerRefused, *UNREACHABLE) as error:
            left = outbox.backlog().announcements
            wait = "announcement waits" if left == 1 else "announcements wait"
            raise CommandError(f"{left} {wait}: {error}") from error
        many = "" if published == 1 else "s"
        self.stdout.write(f"{published} announcement{many} published; none waits")
