"""The page of a booking's story: one search for any id or an address, and all that happened.

A search is sent as a form, so that what is searched for is in no address, and in no log of addresses. An
address that names what is searched for is answered too, but never taken for something about a customer.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from django.conf import settings
from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch
from django.utils.http import urlencode
from django.utils.text import Truncator

from booking_platform.operations.records import address_of, exact, story_address, typed
from booking_platform.operations.stories import Entry, Level, Link, Meaning, Point, named
from booking_platform.operations.story import (
    MOST_MEANINGS,
    looked_for,
    meanings_of,
    story_of,
)

SEE_OTHER = 303
LONGEST_ECHO = 1000  # characters of what was searched for
MARKS = {Level.ATTENTION: "look at it", Level.PERSON: "waits for a person"}


class Shown(NamedTuple):
    """An entry or a point as the page shows it."""

    tells: Entry | Point
    mark: str
    links: list[tuple[str, str]]  # address, empty where the person may not see the record; text


class Choice(NamedTuple):
    """One thing that a search term may mean, as the page shows it."""

    address: str
    name: str
    why: str


def show(request: HttpRequest) -> HttpResponse:
    """Answer a search, or show the story of the booking that the address names."""
    if request.method == "POST":
        return _search(request, request.POST.get("q", ""), private=True)
    if booking := request.GET.get("booking", ""):
        return _story(request, booking)
    return _search(request, request.GET.get("q", ""), private=False)


def _story(request: HttpRequest, booking: str) -> HttpResponse:
    story = story_of(booking, request.user.has_perm)
    if not story.known:
        return _page(request, exact(booking), nothing=True)
    points = [_shown(request, point) for point in story.points]
    entries = [_shown(request, entry) for entry in story.entries]
    events = urlencode({"aggregate_id": booking})
    return _page(
        request, exact(booking), story=story, points=points, entries=entries, events_query=events
    )


def _search(request: HttpRequest, term: str, *, private: bool) -> HttpResponse:
    """Show the only thing that a term means, or what it may mean."""
    term = typed(term.strip())
    found = meanings_of(term, request.user.has_perm, private=private)
    choices = [_choice(request, meaning) for meaning in found[:MOST_MEANINGS]]
    if len(choices) == 1 and choices[0].address:
        answer = HttpResponseRedirect(choices[0].address)
        answer.status_code = SEE_OTHER
        return answer
    more = len(found) > MOST_MEANINGS
    return _page(
        request,
        term=Truncator(exact(term)).chars(LONGEST_ECHO),
        choices=choices,
        more=more,
        nothing=bool(term) and not found,
    )


def _choice(request: HttpRequest, meaning: Meaning) -> Choice:
    if meaning.record is not None:
        return Choice(_address(request, meaning.record), named(meaning.record), meaning.why)
    return Choice(story_address(meaning.booking), f"Booking {exact(meaning.booking)}", meaning.why)


def _shown(request: HttpRequest, tells: Entry | Point) -> Shown:
    return Shown(tells, MARKS.get(tells.level, ""), list(_links(request, tells.links)))


def _links(request: HttpRequest, links: tuple[Link, ...]) -> Iterator[tuple[str, str]]:
    for link in links:
        yield _address(request, link.to), link.text


def _address(request: HttpRequest, record: Model) -> str:
    """Return the address of a record's page; empty where the person may not see it."""
    meta = record._meta
    if not request.user.has_perm(f"{meta.app_label}.view_{meta.model_name}"):
        return ""
    try:
        return address_of(record)
    except NoReverseMatch:
        return ""


def _page(request: HttpRequest, booking: str = "", **context: Any) -> HttpResponse:
    may = request.user.has_perm
    context = {"term": ""} | context
    context |= {
        **admin.site.each_context(request),
        "title": "The story of a booking",
        "subtitle": booking,
        "booking": booking,
        "looked_for": looked_for(may, private=True),
        "searched": looked_for(may, private=request.method == "POST"),
        "time_zone": settings.TIME_ZONE,
        "events_days": settings.PROCESSED_EVENTS_RETENTION.days,
        "address_days": settings.EMAIL_RETENTION.days,
    }
    return TemplateResponse(request, "admin/operations/story.html", context)
