"""Make queues anew whose properties are of an older version, with all that is in them."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from booking_platform.messaging import broker, renewal


class Command(BaseCommand):
    help = f"{__doc__} Stop all workers and beat first; producers may go on."

    def handle(self, *args: Any, **options: Any) -> None:
        renewed = 0
        try:
            for name in renewal.renew_queues():
                self.stdout.write(f"{name}: made anew")
                renewed += 1
        except renewal.StillConsumed as queue:
            raise CommandError(
                f"A worker consumes {queue}. Stop all workers, then try again."
            ) from queue
        except broker.UNREACHABLE as error:
            raise CommandError(f"The broker refused: {error}. What is done stays done.") from error
        self.stdout.write(f"{renewed} queues made anew; the others are as they must be.")
