"""The HTTP API for web shops: what it shows, tags, refuses, and to whom."""

import json
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from catalog.models import Tour
from tests.events import availability
from tests.factories import TourFactory
from tests.integration.test_availability import settle

pytestmark = pytest.mark.django_db(transaction=True)

SECURITY = "django.middleware.security.SecurityMiddleware"
SHOP = "https://shop.example"


@pytest.fixture
def api(settings: Any) -> Client:
    """A client of the API, which is on, and which pages of the shop may ask."""
    place = settings.MIDDLEWARE.index(SECURITY) + 1
    ours = ["corsheaders.middleware.CorsMiddleware", "catalog.api.problems.ApiAnswers"]
    settings.MIDDLEWARE = [*settings.MIDDLEWARE[:place], *ours, *settings.MIDDLEWARE[place:]]
    settings.ROOT_URLCONF = "tests.integration.api_addresses"
    settings.CORS_URLS_REGEX, settings.CORS_ALLOWED_ORIGINS = "^/api/", [SHOP]
    settings.CORS_ALLOW_METHODS = ["GET", "HEAD", "OPTIONS"]
    settings.CORS_ALLOW_HEADERS = ["accept", "if-none-match"]
    return Client(raise_request_exception=False)


@pytest.fixture
def tour() -> Tour:
    tour = TourFactory.create(name="Giverny", price="80.00", capacity=20)
    settle(availability(tour.pk, 7, 3))
    return tour


def numbered(count: int) -> list[int]:
    return [TourFactory.create(name=f"T{n}", capacity=n).pk for n in range(count)]


def followed(api: Client, address: str | None) -> list[list[int]]:
    """Return the ids on each page, from one address on."""
    pages = []
    while address:
        page = api.get(address).json()
        pages.append([tour["id"] for tour in page["tours"]])
        address = page["next"]
    return pages


class TestATour:
    def test_it_shows_what_a_shop_needs_and_no_more(self, api: Client, tour: Tour) -> None:
        answer = api.get(f"/api/tours/{tour.pk}/")
        assert answer.status_code == 200
        assert answer["Content-Type"] == "application/json"
        assert answer.json() == {
            "id": tour.pk, "name": "Giverny", "price": "80.00", "capacity": 20, "available": 3,
            "version": 7,
        }  # fmt: skip

    def test_one_that_nothing_was_announced_of_shows_its_own_numbers(self, api: Client) -> None:
        tour = TourFactory.create(capacity=9)
        assert api.get(f"/api/tours/{tour.pk}/").json()["available"] == 9

    def test_prices_are_exact(self, api: Client) -> None:
        for price in ("0.10", "0.00", "12345678.90"):
            tour = TourFactory.create(price=Decimal(price))
            assert api.get(f"/api/tours/{tour.pk}/").json()["price"] == price

    def test_the_newest_announcement_is_shown_whatever_comes_after(
        self, api: Client, tour: Tour
    ) -> None:
        settle(availability(tour.pk, 8, 1))
        settle(availability(tour.pk, 6, 5))
        shown = api.get(f"/api/tours/{tour.pk}/").json()
        assert (shown["available"], shown["version"]) == (1, 8)

    @pytest.mark.parametrize("name", ["4242", "abc", "-1", "1.0", "9" * 30, "9" * 5000, "%00"])
    def test_one_that_is_not_there_is_404_in_json(self, api: Client, name: str) -> None:
        answer = api.get(f"/api/tours/{name}/")
        assert answer.status_code == 404
        assert answer["Content-Type"] == "application/problem+json"
        assert answer["Cache-Control"] == "no-store"
        assert answer.json()["detail"].startswith("There is no")

    def test_one_that_was_deleted_is_gone_though_it_was_announced(
        self, api: Client, tour: Tour
    ) -> None:
        pk = tour.pk
        tour.delete()
        settle(availability(pk, 9))
        assert api.get(f"/api/tours/{pk}/").status_code == 404
        assert api.get("/api/tours/").json() == {"tours": [], "next": None}


class TestTags:
    @pytest.mark.parametrize("address", ["/api/tours/{}/", "/api/tours/"])
    def test_who_has_it_gets_304_until_it_changes(
        self, api: Client, tour: Tour, address: str
    ) -> None:
        address = address.format(tour.pk)

        def ask(etag: str) -> tuple[int, str]:
            answer = api.get(address, headers={"If-None-Match": etag})
            assert answer["Cache-Control"] == "public, max-age=1, must-revalidate"
            assert answer.status_code == 200 or not answer.content
            return answer.status_code, answer["ETag"]

        _, first = ask('"unknown"')
        assert first.startswith('W/"')
        assert ask(first) == (304, first)
        assert ask(f'"other", {first.removeprefix("W/")}') == (304, first)
        assert ask("*") == (304, first)
        settle(availability(tour.pk, 6, 9))  # older: it changes nothing
        assert ask(first) == (304, first)
        settle(availability(tour.pk, 8, 3))  # no other numbers, but another version
        status, second = ask(first)
        assert (status, second != first) == (200, True)
        tour.price = Decimal("85.00")
        tour.save()  # which may be announced later, or never
        status, third = ask(second)
        assert (status, third not in (first, second)) == (200, True)
        assert ask(third)[0] == 304

    def test_that_of_a_tour_begins_with_its_version(self, api: Client, tour: Tour) -> None:
        assert api.get(f"/api/tours/{tour.pk}/")["ETag"].startswith('W/"7-')

    def test_head_says_what_get_says_without_the_body(self, api: Client, tour: Tour) -> None:
        for address in (f"/api/tours/{tour.pk}/", "/api/tours/?limit=1", "/api/tours/4242/"):
            got, head = api.get(address), api.head(address)
            assert head.content == b""
            assert head.status_code == got.status_code
            assert head.headers == got.headers
            assert int(head["Content-Length"]) == len(got.content)


class TestPages:
    def test_every_tour_is_on_one_of_them_in_the_order_of_ids(self, api: Client) -> None:
        ids = numbered(7)
        assert followed(api, "/api/tours/?limit=3") == [ids[:3], ids[3:6], ids[6:]]
        assert followed(api, "/api/tours/?limit=7") == [ids]
        assert followed(api, "/api/tours/") == [ids]
        assert followed(api, f"/api/tours/?after={ids[-1]}") == [[]]

    def test_tours_that_come_and_go_meanwhile_shift_none(self, api: Client) -> None:
        ids = numbered(4)
        first = api.get("/api/tours/?limit=2").json()
        Tour.objects.filter(pk=ids[0]).delete()
        TourFactory.create(pk=ids[-1] + 1)
        assert followed(api, first["next"]) == [ids[2:], [ids[-1] + 1]]

    def test_only_those_with_free_seats_where_that_is_asked_for(self, api: Client) -> None:
        ids = numbered(6)  # with 0 to 5 seats
        settle(availability(ids[5], 9, 1), availability(ids[0], 9, 4))
        assert followed(api, "/api/tours/?seats=2&limit=2") == [[ids[0], ids[2]], ids[3:5]]
        assert followed(api, "/api/tours/?seats=0") == [ids]

    def test_one_has_50_tours_and_never_more_than_200(self, api: Client) -> None:
        numbered(201)
        assert [len(page) for page in followed(api, "/api/tours/")] == [50, 50, 50, 50, 1]
        assert [len(page) for page in followed(api, "/api/tours/?limit=200")] == [200, 1]

    def test_one_query_whatever_is_on_it(self, api: Client) -> None:
        ids = numbered(150)
        settle(*[availability(pk, 3) for pk in ids[::2]])
        addresses = ("?limit=1", "?limit=150", f"?limit=9&seats=2&after={ids[5]}", f"{ids[0]}/")
        for address in addresses:
            with CaptureQueriesContext(connection) as queries:
                assert api.get(f"/api/tours/{address}").status_code == 200
            assert len([q for q in queries if "tours" in q["sql"]]) == len(queries) == 1
            assert "COUNT(" not in queries[0]["sql"].upper()

    @pytest.mark.parametrize(
        ("query", "field", "value"),
        [
            ("limit=0", "limit", "0"),
            ("limit=201", "limit", "201"),
            ("limit=-1", "limit", "-1"),
            ("limit=abc", "limit", "abc"),
            ("limit=", "limit", ""),
            ("limit=1.5", "limit", "1.5"),
            ("limit=1%00", "limit", "1\0"),
            ("limit=%ff", "limit", "\ufffd"),
            ("limit=NaN", "limit", "NaN"),
            ("after=-1", "after", "-1"),
            ("after=9223372036854775808", "after", "9223372036854775808"),
            (f"after={'9' * 5000}", "after", "9" * 100),
            ("seats=two", "seats", "two"),
            ("seat=2", "seat", "2"),
            ("limit=1&limit=2", "limit", "1, 2"),
            ("offset=10", "offset", "10"),
        ],
    )
    def test_a_parameter_that_is_not_understood_is_named_with_its_value(
        self, api: Client, query: str, field: str, value: str
    ) -> None:
        answer = api.get(f"/api/tours/?{query}")
        assert answer.status_code == 422
        assert answer["Cache-Control"] == "no-store"
        [wrong] = answer.json()["errors"]
        assert (wrong["field"], wrong["value"]) == (field, value)
        assert wrong["problem"] in answer.json()["detail"]

    def test_all_of_them_are_named_at_once(self, api: Client) -> None:
        answer = api.get("/api/tours/?limit=500&limit=x&seat=2&after=-1")
        named = [(each["field"], each["value"]) for each in answer.json()["errors"]]
        assert named == [("limit", "x"), ("after", "-1"), ("seat", "2")]


class TestOtherPages:
    def test_a_page_of_the_shop_may_ask(self, api: Client, tour: Tour) -> None:
        answer = api.get("/api/tours/", headers={"Origin": SHOP})
        assert answer["Access-Control-Allow-Origin"] == SHOP
        assert "origin" in answer["Vary"].lower()
        assert "Access-Control-Allow-Credentials" not in answer

    def test_it_may_ask_whether_it_may_send_a_tag(self, api: Client) -> None:
        asked = {
            "Origin": SHOP,
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "if-none-match",
        }
        answer = api.options("/api/tours/", headers=asked)
        assert answer.status_code == 200
        assert answer["Access-Control-Allow-Origin"] == SHOP
        assert answer["Access-Control-Allow-Methods"] == "GET, HEAD, OPTIONS"
        assert "if-none-match" in answer["Access-Control-Allow-Headers"]

    @pytest.mark.parametrize("origin", ["https://evil.example", "http://shop.example", "null"])
    def test_a_page_of_anyone_else_may_not(self, api: Client, origin: str) -> None:
        preflight = {"Origin": origin, "Access-Control-Request-Method": "GET"}
        for answer in (
            api.get("/api/tours/", headers={"Origin": origin}),
            api.options("/api/tours/", headers=preflight),
        ):
            assert "Access-Control-Allow-Origin" not in answer

    def test_none_may_ask_the_rest_of_the_web_process(self, api: Client) -> None:
        for address in ("/admin/login/", "/metrics", "/apifoo/"):
            answer = api.get(address, headers={"Origin": SHOP})
            assert "Access-Control-Allow-Origin" not in answer


class TestRequests:
    @pytest.mark.parametrize("method", ["post", "put", "patch", "delete", "options", "trace"])
    @pytest.mark.parametrize("address", ["/api/tours/", "/api/tours/1/"])
    def test_they_only_read(self, api: Client, method: str, address: str) -> None:
        answer = getattr(api, method)(address)
        assert answer.status_code == 405
        assert sorted(answer["Allow"].split(", ")) == ["GET", "HEAD"]
        assert answer["Content-Type"] == "application/problem+json"

    @pytest.mark.parametrize("address", ["/api/", "/api/x", "/api/docs", "/api/tours/1/seats/"])
    def test_an_address_that_is_not_there_is_404_in_json(self, api: Client, address: str) -> None:
        answer = api.get(address)
        assert answer.status_code == 404
        assert answer.json()["detail"] == f"There is nothing at {address}."

    def test_a_bug_is_500_in_json_and_shows_nothing_of_itself(
        self, api: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(tour_id: int) -> None:
            raise ValueError("secret")

        monkeypatch.setattr("catalog.api.tours.offer", broken)
        answer = api.get("/api/tours/1/")
        assert answer.status_code == 500
        assert answer.json()["title"] == "Internal Server Error"
        assert b"secret" not in answer.content

    def test_every_answer_is_safe_to_show_and_sets_no_cookie(
        self, api: Client, admin_client: Client, tour: Tour
    ) -> None:
        api.cookies = admin_client.cookies
        for address in (f"/api/tours/{tour.pk}/", "/api/tours/?x", "/api/x", "/api/openapi.json"):
            answer = api.get(address)
            assert answer["X-Content-Type-Options"] == "nosniff"
            assert answer["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
            assert "cookie" not in answer.get("Vary", "").lower()
            assert "Set-Cookie" not in answer
            assert not answer.cookies

    def test_without_the_slash_at_the_end_they_are_sent_on(self, api: Client) -> None:
        answer = api.get("/api/tours?limit=2")
        assert (answer.status_code, answer["Location"]) == (301, "/api/tours/?limit=2")


class TestTheDocument:
    def test_it_describes_the_answers(self, api: Client, tour: Tour) -> None:
        document = api.get("/api/openapi.json").json()
        assert document["openapi"].startswith("3.")
        paths = document["paths"]
        assert {path: list(each) for path, each in paths.items()} == {
            "/api/tours/": ["get"], "/api/tours/{tour_id}/": ["get"],
        }  # fmt: skip
        names = [each["name"] for each in paths["/api/tours/"]["get"]["parameters"]]
        assert names == ["limit", "after", "seats"]
        schema = document["components"]["schemas"]["TourOut"]
        assert list(schema["properties"]) == list(api.get(f"/api/tours/{tour.pk}/").json())
        assert "://" not in json.dumps(paths)
