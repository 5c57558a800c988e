"""Run the main job with a real worker process, and check what is in the database."""

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from booking_platform.development.processes import ProcessFailed


class Command(BaseCommand):
    help = __doc__

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            from booking_platform.development import demo
        except ModuleNotFoundError as error:
            raise CommandError(
                f"The demo needs {error.name}: pip install -r requirements-dev.txt brings it."
            ) from None
        try:
            good = demo.run()
        except ProcessFailed as error:
            raise CommandError(str(error)) from None
        if not good:
            sys.exit(1)
