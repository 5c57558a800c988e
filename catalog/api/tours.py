"""The addresses of the API: the list of the tours, and each tour.

Nothing is changed by a request, nobody logs in, and no cookie is set.
"""

import hashlib
from collections.abc import Iterator
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.cache import get_conditional_response
from ninja import Field, NinjaAPI, Query, Schema
from ninja.errors import ValidationError

from catalog.api.offers import Offer, offer, page
from catalog.api.problems import problem, wrong_parameters

MOST = 200  # tours on one page
USUAL = 50
LARGEST_ID = 2**63 - 1
DIGEST = 16  # hexadecimal digits: 64 bits tell versions of one page apart

# A shop may show what it has for a second, and asks again after that.
FRESHNESS = "public, max-age=1, must-revalidate"

api = NinjaAPI(
    title="Tours",
    version="1.0.0",
    description="The tours of the operator, and the seats that are free. Numbers follow the bookings "
    "within moments: a booking is what decides.",
    urls_namespace="api",
    docs_url=None,  # its page would load scripts from a foreign host
)


class TourOut(Schema):
    """A tour and its seats."""

    id: int
    name: str
    price: str = Field(description="exact, in major units", examples=["80.00"])
    capacity: int = Field(description="seats that the tour has")
    available: int = Field(description="seats that can still be sold")
    version: int = Field(
        description="grows with each change of the tour; the greatest is the newest"
    )


class ToursOut(Schema):
    """A page of tours, in the order of their ids."""

    tours: list[TourOut]
    next: str | None = Field(description="the address of the next page; null on the last one")


class WrongOut(Schema):
    """One parameter that can't be used."""

    field: str
    value: str
    problem: str


class ProblemOut(Schema):
    """What is wrong with a request (RFC 9457)."""

    title: str
    status: int
    detail: str
    errors: list[WrongOut] = Field(default=[], description="with status 422")


class PageIn(Schema):
    """Which tours are listed."""

    limit: int = Field(USUAL, ge=1, le=MOST, description="tours on a page, at most")
    after: int = Field(0, ge=0, le=LARGEST_ID, description="an id: tours with greater ones follow")
    seats: int = Field(0, ge=0, le=LARGEST_ID, description="only tours with so many free, or more")


WANTED = {
    "limit": f"give a whole number from 1 to {MOST}",
    "after": "give the id of the last tour that you have, or take the address in `next`",
    "seats": "give a whole number, 0 or more",
}


@api.get(
    "tours/",
    response={200: ToursOut, 304: None, 422: ProblemOut},
    operation_id="list_tours",
    summary="List tours",
)
@api.api_operation(["HEAD"], "tours/", include_in_schema=False)
def list_tours(request: HttpRequest, asked: Annotated[PageIn, Query()]) -> HttpResponse:
    """Return a page of the tours, and the address of the next one."""
    if wrong := list(_misunderstood(request)):
        return wrong_parameters(wrong)
    found = page(after=asked.after, limit=asked.limit + 1, seats=asked.seats)
    shown = found[: asked.limit]
    more = _address(asked, after=shown[-1].id) if len(found) > len(shown) else None
    body = ToursOut(tours=[_out(each) for each in shown], next=more)
    return _answer(request, body, version="")


@api.get(
    "tours/{int:tour_id}/",
    response={200: TourOut, 304: None, 404: ProblemOut},
    operation_id="get_tour",
    summary="One tour",
)
@api.api_operation(["HEAD"], "tours/{int:tour_id}/", include_in_schema=False)
def get_tour(request: HttpRequest, tour_id: int) -> HttpResponse:
    """Return one tour."""
    found = offer(tour_id)
    if found is None:
        return problem(HTTPStatus.NOT_FOUND, f"There is no tour {tour_id}.")
    return _answer(request, _out(found), version=f"{found.version}-")


@api.exception_handler(ValidationError)
def _refuse(request: HttpRequest, error: ValidationError) -> HttpResponse:
    fields = dict.fromkeys(str(each["loc"][-1]) for each in error.errors)
    unread = [(name, request.GET.get(name, ""), WANTED.get(name, "")) for name in fields]
    return wrong_parameters([*unread, *(e for e in _misunderstood(request) if e[0] not in fields)])


def _misunderstood(request: HttpRequest) -> Iterator[tuple[str, str, str]]:
    """Yield the parameters that would be passed over: of another name, or given twice."""
    for name, values in request.GET.lists():
        if name not in WANTED:
            yield name, values[-1], f"there is no such parameter, only {', '.join(WANTED)}"
        elif len(values) > 1:
            yield name, ", ".join(values), "give it once"


def _address(asked: PageIn, *, after: int) -> str:
    query = asked.model_dump(exclude_defaults=True) | {"after": after}
    return f"{reverse('api:list_tours')}?{urlencode(query)}"


def _out(found: Offer) -> TourOut:
    return TourOut(**found._asdict() | {"price": f"{found.price:.2f}"})


def _answer(request: HttpRequest, body: Schema, *, version: str) -> HttpResponse:
    """Return a body, or 304 where the client has it.

    The tag is of all that the body says: a name or a price may change without a new announcement. It is
    weak, since proxies compress what they pass on, and then change or drop a strong one (RFC 9110, 8.8.1).
    """
    content = body.model_dump_json().encode()
    etag = f'W/"{version}{hashlib.sha256(content).hexdigest()[:DIGEST]}"'
    answer: Any = HttpResponse(content, content_type="application/json")
    answer = get_conditional_response(request, etag=etag, response=answer)
    answer["ETag"], answer["Cache-Control"] = etag, FRESHNESS
    assert isinstance(answer, HttpResponse)
    return answer
