"""Run web, worker, beat and a Stripe sandbox together, for development; Ctrl-C stops them all."""

from argparse import ArgumentParser
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand
from django.db import connection

from booking_platform.development.processes import PythonProcess, migrate, run_together

NAME = PASSWORD = "admin"  # noqa: S105  (of the embedded database only)
EMBEDDED_NAME = "db.sqlite3"  # under VAR_DIR, as in the settings


def is_embedded() -> bool:
    """Return whether the database is the file that this project makes where none is named."""
    name = connection.settings_dict["NAME"]
    return connection.vendor == "sqlite" and Path(name) == settings.VAR_DIR / EMBEDDED_NAME


def who_may_log_in() -> str:
    """Return who may log in, in a sentence. A password that everybody knows is in no other database.

    The embedded one gets a user with such a password. Of a database that somebody has named no more is
    known than that somebody needs it; an earlier version may have left that user there.
    """
    users = get_user_model().objects
    user = users.filter(username=NAME).first()
    if is_embedded():
        if user is None:
            users.create_superuser(NAME, password=PASSWORD)
        return f"{NAME!r}, {PASSWORD!r}"
    if user is not None and user.check_password(PASSWORD):
        password = token_urlsafe(12)
        user.set_password(password)
        user.save(update_fields=["password"])
        return f"{NAME!r} had a password that everybody knows. It is {password!r} now, and shown only once"
    if users.filter(is_superuser=True, is_active=True).exists():
        return "with a user of this database"
    return (
        "nobody can log in yet; `python manage.py createsuperuser` creates a user in this database"
    )


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=8000)

    def handle(self, *args: Any, **options: Any) -> None:
        migrate()
        address = f"127.0.0.1:{options['port']}"
        self.stdout.write(f"The admin is at http://{address}/admin/: {who_may_log_in()}.")
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
