"""Who may read ``/metrics``: whoever has the token, or asks from an address that may.

A scraper asks a process by the address of its pod, without TLS. So this page is answered before hosts
are checked and requests redirected to HTTPS, and it alone.
"""

from collections.abc import Callable
from secrets import compare_digest

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import resolve

from booking_platform.operations.clients import known_address

PLACE = "/metrics"
CLOSED = (
    "These metrics are closed to you: send METRICS_TOKEN as a bearer token, or have your address added to "
    "METRICS_ALLOWED.\n"
)
BEARER = "bearer "  # RFC 6750, 2.1; the name of a scheme is of any case (RFC 9110, 11.1)


class Metrics:
    """Middleware that answers ``/metrics`` with the view of the project's addresses, or with 403."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path_info != PLACE:
            return self._get_response(request)
        if not may_look(request):
            return HttpResponse(CLOSED, status=403, content_type="text/plain; charset=utf-8")
        found = resolve(PLACE)
        answer: HttpResponse = found.func(request, *found.args, **found.kwargs)
        return answer


def may_look(request: HttpRequest) -> bool:
    """Return whether a request may see how the platform is."""
    return _has_token(request) or _is_near(request)


def _has_token(request: HttpRequest) -> bool:
    said = request.META.get("HTTP_AUTHORIZATION", "")
    if not (settings.METRICS_TOKEN and said.lower().startswith(BEARER)):
        return False
    return compare_digest(said[len(BEARER) :].strip().encode(), settings.METRICS_TOKEN.encode())


def _is_near(request: HttpRequest) -> bool:
    found = known_address(request)
    return found is not None and any(found in network for network in settings.METRICS_ALLOWED)
