"""Foreign text in templates, so that nothing in it hides."""

from datetime import datetime

from django import template
from django.db.models import Model
from django.utils.text import capfirst
from django.utils.timezone import localtime

register = template.Library()


@register.filter
def name_of_part(title: object) -> str:
    """Return what a part of the path to a page is called: a record as it is, a kind with a capital."""
    # Not above: the theme loads all tags while that module imports the theme.
    from booking_platform.operations.records import exact

    return exact(title) if isinstance(title, Model) else str(capfirst(str(title)))


@register.filter
def shown(value: object) -> str:
    """Return a figure, a time or foreign text as people read it."""
    from booking_platform.operations.records import visible

    if isinstance(value, datetime):
        return f"{localtime(value):%Y-%m-%d %H:%M:%S %Z}"
    return f"{value:,}" if isinstance(value, int) else visible(value)


@register.filter
def is_figure(value: object) -> bool:
    """Return whether a cell holds a number."""
    return isinstance(value, int)


@register.filter
def age(since: datetime, now: datetime) -> str:
    """Return how long ago something was."""
    from booking_platform.operations import dashboard

    return dashboard.age(since, now)
