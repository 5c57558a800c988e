"""The id of a web request: each log line has it that is written while the request is answered."""

import re
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from django.core.signals import request_finished
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse
from structlog.contextvars import bind_contextvars, unbind_contextvars

HEADER = "X-Request-ID"
NAME = "request_id"
PLAIN = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestIds:
    """Middleware that takes over the id that a proxy has given, and answers with it, or makes one.

    It is bound until Django is done with the request: what went wrong is logged after all middleware.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.headers.get(HEADER, "")
        known = PLAIN.fullmatch(given) is not None
        bind_contextvars(**{NAME: given if known else uuid4().hex})
        answer = self._get_response(request)
        if known:  # a HEAD has the headers of its GET otherwise
            answer[HEADER] = given
        return answer


@receiver(request_finished)
def _unbind(**_: Any) -> None:
    unbind_contextvars(NAME)
