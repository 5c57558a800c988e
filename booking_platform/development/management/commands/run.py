"""Run web, worker, beat and a Stripe sandbox together, for development; Ctrl-C stops them all."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand

from booking_platform.development.processes import PythonProcess, migrate, run_together

NAME = PASSWORD = "admin"  # noqa: S105  (of the development database only)


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=8000)

    def handle(self, *args: Any, **options: Any) -> None:
        migrate()
        users = get_user_model().objects
        if not users.filter(username=NAME).exists():
            users.create_superuser(NAME, password=PASSWORD)
        address = f"127.0.0.1:{options['port']}"
        self.stdout.write(f"The admin is at http://{address}/admin/: {NAME!r}, {PASSWORD!r}.")
        if settings.SMTP_HOST == settings.MAIL_FILES:
            self.stdout.write(f"E-mails become files in {settings.MAIL_DIR}.")
        self.stdout.write("Ctrl-C stops everything that this has started.\n")
        self.stdout.flush()
        celery = ("-m", "celery", "-A", "booking_platform")
        commands: list[tuple[str, ...]] = [
            ("manage.py", "runserver", "--noreload", address),
            (*celery, "worker", "--concurrency", "2"),
            (*celery, "beat"),
        ]
        sandbox = f"http://127.0.0.1:{settings.STRIPE_SANDBOX_PORT}"
        if sandbox == settings.STRIPE_API_BASE:
            webhooks = ("--webhook-url", f"http://{address}/webhooks/stripe/")
            secret = ("--webhook-secret", settings.STRIPE_WEBHOOK_SECRET)
            port = ("--port", str(settings.STRIPE_SANDBOX_PORT))
            commands.append(("manage.py", "stripe_sandbox", *port, *webhooks, *secret))
        run_together([PythonProcess(*command) for command in commands])
