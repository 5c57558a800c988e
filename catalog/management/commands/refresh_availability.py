"""Make what web shops are shown of the tours' seats equal to the tours, whatever was announced."""

from typing import Any

from django.core.management.base import BaseCommand

from catalog import availability


class Command(BaseCommand):
    help = __doc__

    def handle(self, *args: Any, **options: Any) -> None:
        wrong = availability.refresh()
        some = f"{wrong} tour{'' if wrong == 1 else 's'} had other numbers."
        self.stdout.write(some if wrong else "All tours had theirs.")
