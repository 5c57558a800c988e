"""Who may read the metrics, and under which names of the host."""

import ipaddress
from typing import Any

import pytest
from django.test import Client

pytestmark = pytest.mark.django_db

TOKEN = "a-token-for-the-scraper"


@pytest.fixture(autouse=True)
def _as_in_production(settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["bookings.example.com"]
    settings.SECURE_SSL_REDIRECT = True


def status(settings: Any = None, **meta: Any) -> int:
    return Client(raise_request_exception=False).get("/metrics", **meta).status_code


class TestWithoutASetting:
    @pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
    def test_this_machine_may_read_them(self, address: str) -> None:
        assert status(REMOTE_ADDR=address) == 200

    @pytest.mark.parametrize("address", ["10.0.0.1", "192.0.2.1", "2001:db8::1", "", "nonsense"])
    def test_nobody_else_may(self, address: str) -> None:
        answer = Client().get("/metrics", REMOTE_ADDR=address)
        assert answer.status_code == 403
        assert "METRICS_TOKEN" in answer.content.decode()
        assert "python_info" not in answer.content.decode()

    @pytest.mark.parametrize(
        "header",
        [
            "HTTP_X_FORWARDED_FOR",
            "HTTP_X_FORWARDED_PROTO",
            "HTTP_X_FORWARDED_HOST",
            "HTTP_FORWARDED",
            "HTTP_X_REAL_IP",
            "HTTP_VIA",
        ],
    )
    def test_a_proxy_on_this_machine_opens_them_to_nobody(self, header: str) -> None:
        assert status(REMOTE_ADDR="127.0.0.1", **{header: "127.0.0.1"}) == 403

    def test_nobody_writes_an_address_of_this_machine(self, settings: Any) -> None:
        settings.PROXY_COUNT = 1
        assert status(REMOTE_ADDR="127.0.0.1", HTTP_X_FORWARDED_FOR="127.0.0.1, 192.0.2.1") == 403
        assert status(REMOTE_ADDR="192.0.2.1", HTTP_X_FORWARDED_FOR="127.0.0.1") == 403
        assert status(REMOTE_ADDR="127.0.0.1") == 200  # past the proxy


class TestAnAddressList:
    @pytest.mark.parametrize(
        ("address", "answer"),
        [("10.1.2.3", 200), ("2001:db8::5", 200), ("11.0.0.1", 403), ("127.0.0.1", 403)],
    )
    def test_it_is_who_may_read_them(self, settings: Any, address: str, answer: int) -> None:
        settings.METRICS_ALLOWED = [
            ipaddress.ip_network("10.0.0.0/8"),
            ipaddress.ip_network("2001:db8::/32"),
        ]
        assert status(REMOTE_ADDR=address) == answer


class TestAToken:
    @pytest.mark.parametrize("said", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER  {TOKEN} "])
    def test_who_has_it_may_read_them_from_anywhere(self, settings: Any, said: str) -> None:
        settings.METRICS_TOKEN = TOKEN
        assert status(REMOTE_ADDR="192.0.2.1", HTTP_AUTHORIZATION=said) == 200

    @pytest.mark.parametrize(
        "said", ["", "Bearer", "Bearer x", f"Basic {TOKEN}", TOKEN, "Bearer é\xff"]
    )
    def test_nothing_else_will_do(self, settings: Any, said: str) -> None:
        settings.METRICS_TOKEN = TOKEN
        assert status(REMOTE_ADDR="192.0.2.1", HTTP_AUTHORIZATION=said) == 403

    def test_no_token_is_no_password(self) -> None:
        assert status(REMOTE_ADDR="192.0.2.1", HTTP_AUTHORIZATION="Bearer ") == 403


class TestTheHost:
    @pytest.mark.parametrize("host", ["10.244.1.7:8000", "10.244.1.7", "[2001:db8::1]:8000", "x_y"])
    def test_a_scraper_may_name_the_pods_address(self, host: str) -> None:
        assert status(HTTP_HOST=host) == 200

    @pytest.mark.parametrize("place", ["/admin/", "/metrics/", "/metrics/x", "//metrics", "/"])
    def test_nothing_else_may(self, place: str) -> None:
        client = Client(raise_request_exception=False)
        assert client.get(place, HTTP_HOST="10.244.1.7", secure=True).status_code == 400
