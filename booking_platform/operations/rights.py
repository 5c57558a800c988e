"""Who may decide about a dead letter of which queue, and which roles may."""

from collections.abc import Iterable
from typing import Protocol

from django.contrib.auth.models import Group, Permission

from booking_platform.messaging.rules import CONSUMERS, Consumer
from booking_platform.operations.records import exact


class Person(Protocol):
    """Who has rights: a user of Django, logged in or not."""

    def has_perm(self, perm: str) -> bool: ...


def lacking(person: Person, consumers: Iterable[Consumer]) -> str:
    """Return in words which right a person lacks to decide about an event of consumers; empty if none."""
    for consumer in consumers:
        needed = consumer.replay_permission
        if needed and not person.has_perm(needed):
            app_label, _, codename = needed.partition(".")
            rights = Permission.objects.filter(content_type__app_label=app_label, codename=codename)
            name = rights.values_list("name", flat=True).first() or "which there is not"
            return (
                f"for what goes to {consumer.queue} you need the permission {needed} ({name}): "
                f"{holders([needed])}"
            )
    return ""


def barred(person: Person) -> tuple[str, ...]:
    """Return the queues about whose letters a person may decide nothing."""
    return tuple(
        sorted(
            queue
            for queue, consumer in CONSUMERS.items()
            if consumer.replay_permission and not person.has_perm(consumer.replay_permission)
        )
    )


def needed(permission: str, consumers: Iterable[Consumer]) -> list[str]:
    """Return the permissions that a decision about an event of consumers needs."""
    own = {each.replay_permission for each in consumers if each.replay_permission}
    return [permission, *sorted(own)]


def holders(permissions: Iterable[str]) -> str:
    """Return in words which roles have all of some permissions."""
    groups = Group.objects.order_by("name")
    for permission in permissions:
        app_label, _, codename = permission.partition(".")
        groups = groups.filter(
            permissions__content_type__app_label=app_label, permissions__codename=codename
        )
    names = [exact(name) for name in groups.values_list("name", flat=True).distinct()]
    if not names:
        return "no role has it, ask an administrator"
    return f"role {' or '.join(names)}"
