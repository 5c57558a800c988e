"""Migrate the database and make sure that the developer can log in; `make run` calls it."""

from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

NAME = PASSWORD = "admin"  # noqa: S105  (of the development database only)


class Command(BaseCommand):
    help = __doc__

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.PRODUCTION:
            raise CommandError("DJANGO_ENV is 'production': run migrate and createsuperuser there.")
        call_command("migrate", verbosity=0)
        users = get_user_model().objects
        if not users.filter(username=NAME).exists():
            users.create_superuser(NAME, password=PASSWORD)
        self.stdout.write(f"Log in to the admin as {NAME!r}, password {PASSWORD!r}.")
