"""Answers that are no success, as JSON that says what is wrong (RFC 9457)."""

import json
from collections.abc import Callable, Iterable
from http import HTTPStatus

from django.http import HttpRequest, HttpResponse

CONTENT_TYPE = "application/problem+json"
PREFIX = "/api/"
LONGEST_VALUE = 100  # characters of what a client sent that are sent back
SUCCESS = range(200, 300)
NOT_MODIFIED = 304

Answer = Callable[[HttpRequest], HttpResponse]


def wrong_parameters(problems: Iterable[tuple[str, str, str]]) -> HttpResponse:
    """Return the answer to parameters of a query that can't be used: name, value and what is wanted."""
    errors = [
        {"field": field[:LONGEST_VALUE], "value": value[:LONGEST_VALUE], "problem": wanted}
        for field, value, wanted in problems
    ]
    detail = "; ".join(f"{e['field']} is {e['value']!r}: {e['problem']}" for e in errors)
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=errors)


def problem(status: HTTPStatus, detail: str, **more: object) -> HttpResponse:
    return HttpResponse(_body(status, detail, **more), status=status, content_type=CONTENT_TYPE)


def _body(status: HTTPStatus, detail: str, **more: object) -> bytes:
    said = {"title": status.phrase, "status": status.value, "detail": detail, **more}
    return json.dumps(said, ensure_ascii=True).encode()


class ApiAnswers:
    """Middleware: whatever answers under /api/, it is JSON, has no active content, and errors aren't kept."""

    def __init__(self, get_response: Answer) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        answer = self._get_response(request)
        if not request.path_info.startswith(PREFIX):
            return answer
        status = answer.status_code
        if status >= HTTPStatus.BAD_REQUEST and answer.get("Content-Type") != CONTENT_TYPE:
            _rewrite(request, answer, HTTPStatus(status))
        if status not in SUCCESS and status != NOT_MODIFIED:
            answer["Cache-Control"] = "no-store"
        answer.headers.setdefault("Cache-Control", "no-cache")
        answer["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'none'"
        if request.method == "HEAD":  # not every server removes it
            answer.headers.setdefault("Content-Length", str(len(answer.content)))
            answer.content = b""
        return answer


def _rewrite(request: HttpRequest, answer: HttpResponse, status: HTTPStatus) -> None:
    details = {
        HTTPStatus.NOT_FOUND: f"There is nothing at {request.path_info[:LONGEST_VALUE]}.",
        HTTPStatus.METHOD_NOT_ALLOWED: f"Only {answer.get('Allow')} are answered here.",
    }
    answer.content = _body(status, details.get(status, f"{status.phrase}."))
    answer["Content-Type"] = CONTENT_TYPE
    if "Content-Length" in answer:
        answer["Content-Length"] = str(len(answer.content))
