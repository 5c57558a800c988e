"""Run a Stripe of our own on 127.0.0.1; it forgets everything when it ends."""

import signal
import threading
from argparse import ArgumentParser
from contextlib import suppress
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from booking_platform.development.stripe_sandbox import running
from booking_platform.development.stripe_sandbox.webhooks import API_VERSION


class Command(BaseCommand):
    help = __doc__
    requires_system_checks: list[str] = []  # it needs no database and no broker

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=12111, help="0 takes a free one")
        parser.add_argument("--webhook-url", default="", help="where events are sent")
        parser.add_argument("--webhook-secret", default="", help="what signs them: whsec_…")
        parser.add_argument(
            "--webhook-version", default=API_VERSION, metavar="DATE", help="whose events are sent"
        )
        parser.add_argument(
            "--latency", type=float, default=0.0, metavar="SECONDS", help="before each answer"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        for wish in (signal.SIGINT, signal.SIGTERM):
            signal.signal(wish, signal.default_int_handler)
        try:
            with (
                suppress(KeyboardInterrupt),
                running(
                    options["port"],
                    options["webhook_url"],
                    options["webhook_secret"],
                    options["latency"],
                    options["webhook_version"],
                ) as sandbox,
            ):
                self.stdout.write(f"The Stripe sandbox listens at {sandbox.url}. Ctrl-C ends it.")
                self.stdout.flush()
                threading.Event().wait()
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise CommandError(f"Port {options['port']} can't be used: {reason}.") from None
        except ValueError as error:
            raise CommandError(f"{error}.") from None
