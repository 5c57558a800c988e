"""Foreign text in templates, so that nothing in it hides."""

from django import template
from django.db.models import Model
from django.utils.text import capfirst

register = template.Library()


@register.filter
def name_of_part(title: object) -> str:
    """Return what a part of the path to a page is called: a record as it is, a kind with a capital."""
    # Not above: the theme loads all tags while that module imports the theme.
    from booking_platform.operations.records import exact

    return exact(title) if isinstance(title, Model) else str(capfirst(str(title)))
