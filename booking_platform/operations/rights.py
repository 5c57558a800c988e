"""Who may send a dead letter to which queue."""

from collections.abc import Iterable
from typing import Protocol

from django.contrib.auth.models import Permission

from booking_platform.messaging.rules import Consumer


class Person(Protocol):
    """Who has rights: a user of Django, logged in or not."""

    def has_perm(self, perm: str) -> bool: ...


def lacking(person: Person, consumers: Iterable[Consumer]) -> str:
    """Return in words which right a person lacks to replay an event to consumers; empty if none."""
    for consumer in consumers:
        needed = consumer.replay_permission
        if needed and not person.has_perm(needed):
            app_label, _, codename = needed.partition(".")
            rights = Permission.objects.filter(content_type__app_label=app_label, codename=codename)
            name = rights.values_list("name", flat=True).first() or "which there is not"
            return f"to replay it to {consumer.queue} you need the permission {needed} ({name})"
    return ""
