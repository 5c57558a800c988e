"""Addresses that no page of the admin has made: answered with 400 before they reach a database.

Django's admin hands what an address says to the database as it is. PostgreSQL can't store NUL, no
database knows integers without end, and each of them says so with an error that would become a 500.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress

import structlog
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import TO_FIELD_VAR
from django.db import DataError
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest
from django.urls import reverse

from booking_platform.operations.records import UnknownChoice, visible

log = structlog.get_logger(__name__)

LONGEST = 4_000  # characters of a value; Python reads no integer of 4,300 digits
LARGEST_KEY = 2**63 - 1

# Lookups that no filter of ours uses, and for which Django does not look at the values first.
UNUSED_LOOKUPS = ("__in", "__range", "__regex", "__iregex")

# What the drivers raise for a value that a column can't hold: integers, dates, halves of characters.
UNSTORABLE = (DataError, OverflowError, UnicodeEncodeError)

Answer = Callable[[HttpRequest], HttpResponse]


class AdminAddresses:
    """Middleware that refuses what the admin's pages can't ask a database for."""

    def __init__(self, get_response: Answer) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if _is_admin(request) and (problem := _problem(request)):
            return _refusal(request, problem)
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Return a refusal where a filter, or the database, can't take a value that the address names."""
        if isinstance(error, UnknownChoice):
            return _refusal(request, visible(error))
        if request.method == "GET" and _is_admin(request) and isinstance(error, UNSTORABLE):
            return _refusal(request, "a value in it is out of bounds")
        return None


def _is_admin(request: HttpRequest) -> bool:
    return request.path_info.startswith(reverse("admin:index"))


def _problem(request: HttpRequest) -> str:
    """Return what is wrong with a request; empty if it may be answered."""
    named = [text for name, values in request.GET.lists() for text in (name, *values)]
    if any("\0" in text for text in (request.path_info, *named, *request.COOKIES.values())):
        return "it holds a NUL character"
    if any(len(text) > LONGEST for text in (*request.path_info.split("/"), *named)):
        return f"a value in it has more than {LONGEST:,} characters"
    if any(name.endswith(UNUSED_LOOKUPS) for name in request.GET) or not request.GET.get(
        TO_FIELD_VAR, "id"
    ):
        return "it asks for what no list offers"
    if request.method == "POST" and not _are_keys(request.POST.getlist(ACTION_CHECKBOX_NAME)):
        return "what it selects are no records"
    return ""


def _are_keys(selected: Iterable[str]) -> bool:
    """Return whether each text is a primary key: all our models have integers."""
    with suppress(ValueError):
        return all(len(key) <= LONGEST and 0 <= int(key) <= LARGEST_KEY for key in selected)
    return False


def _refusal(request: HttpRequest, problem: str) -> HttpResponse:
    log.warning("The admin was asked for what is not there", path=request.path_info[:200])
    return HttpResponseBadRequest(
        f"This address can't be answered: {problem}. Go back, and follow a link instead.",
        content_type="text/plain; charset=utf-8",
    )
