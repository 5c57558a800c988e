"""Lists in pages, newest first: https://docs.stripe.com/api/pagination."""

import operator
from collections.abc import Mapping

from payments.sandbox import parameters
from payments.sandbox.errors import missing
from payments.sandbox.objects import Object
from payments.sandbox.parameters import Parameters

PAGE = ("created", "ending_before", "limit", "starting_after")
COMPARISONS = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
USUAL, LARGEST = 10, 100


def page(objects: Mapping[str, Object], given: Parameters, *, kind: str, url: str) -> Object:
    """Cut the page that is asked for out of objects that are given oldest first."""
    limit = parameters.integer(given, "limit", largest=LARGEST) or USUAL
    newest = [
        each
        for each in reversed(list(objects.values()))
        if all(
            COMPARISONS[how](each["created"], second)
            for how, second in parameters.created(given).items()
        )
    ]
    before = parameters.text(given, "ending_before")
    if before is not None:
        earlier = newest[: _position(newest, before, kind, "ending_before")]
        data, more = earlier[-limit:], len(earlier) > limit
    else:
        after = parameters.text(given, "starting_after")
        start = 0 if after is None else _position(newest, after, kind, "starting_after") + 1
        data, more = newest[start : start + limit], len(newest) > start + limit
    return {"object": "list", "data": data, "has_more": more, "url": url}


def _position(objects: list[Object], identifier: str, kind: str, param: str) -> int:
    for position, each in enumerate(objects):
        if each["id"] == identifier:
            return position
    raise missing(kind, identifier, param)
