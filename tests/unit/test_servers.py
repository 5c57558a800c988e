"""The servers that the environment names: which URLs are refused, and which need a word."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from booking_platform import servers
from tests.unit.environments import PRODUCTION


class TestAUrl:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("STRIPE_API_BASE", "http://stripe.example"),  # the key would go there in the clear
            ("STRIPE_API_BASE", "http://127.0.0.1.example"),
            ("STRIPE_API_BASE", "http://127.0.0.1:80@evil.example"),
            ("STRIPE_API_BASE", "http://localhost:hidden-word@evil.example/"),
            ("STRIPE_API_BASE", "https://user@api.stripe.com"),
            ("STRIPE_API_BASE", "https://user:hidden-word@api.stripe.com"),
            ("STRIPE_API_BASE", "http://127.0.0.1\\@evil.example"),
            ("STRIPE_API_BASE", "https://evil.example\\.stripe.com"),
            ("STRIPE_API_BASE", "http://127.0.0.1/ .evil.example"),
            ("STRIPE_API_BASE", "http://127.0.0.1\t.evil.example"),
            ("STRIPE_API_BASE", "http://127.0.0.1%2eevil.example"),
            ("STRIPE_API_BASE", "http://127.0.0.1%00.evil.example"),
            ("STRIPE_API_BASE", "http://127.1"),
            ("STRIPE_API_BASE", "http://2130706433"),
            ("STRIPE_API_BASE", "https://0x7f.1"),
            ("STRIPE_API_BASE", "http://[::1].evil.example"),
            ("STRIPE_API_BASE", "http://[::ffff:10.0.0.1]"),
            ("STRIPE_API_BASE", "http://localhost.evil.example"),
            ("STRIPE_API_BASE", "https:api.stripe.com"),
            ("STRIPE_API_BASE", "https:///api.stripe.com"),
            ("STRIPE_API_BASE", "https://"),
            ("STRIPE_API_BASE", "https://api.stripe.com:"),
            ("STRIPE_API_BASE", "https://api.stripe.com:0"),
            ("STRIPE_API_BASE", "https://api.stripe.com:99999"),
            ("STRIPE_API_BASE", "https://api.stripe.com:４４３"),
            ("STRIPE_API_BASE", "https://api.stripe.com?x=1"),
            ("STRIPE_API_BASE", "https://api.stripe.com#x"),
            ("STRIPE_API_BASE", "https://аpi.stripe.com"),
            ("STRIPE_API_BASE", "https://a..example"),
            ("RABBITMQ_URL", "amqp://user:hidden-word@host:port/"),
            ("RABBITMQ_URL", "amqp://user:hidden-word@a@host/"),
            ("RABBITMQ_URL", "amqp://user:hidden-word@ho st/"),
            ("RABBITMQ_URL", "amqp://user:hidden-word@host\\evil/"),
            ("RABBITMQ_URL", "amqp://user:hidden-word@host/;redis://:hidden-word@host/"),
            ("RABBITMQ_URL", "amqp://user:hidden-word@host/;"),
            ("RABBITMQ_URL", "amqp://user:hidden-word;x@host/"),
            ("RABBITMQ_URL", "amqp:user:hidden-word@host/"),
            ("RABBITMQ_URL", "amqp://user:hidden-word@host/vhost?ssl=0"),
            ("DJANGO_ALLOWED_HOSTS", "https://a.example"),
            ("DJANGO_ALLOWED_HOSTS", "a.example:8000"),
            ("DJANGO_ALLOWED_HOSTS", "a.example b.example"),
            ("DJANGO_ALLOWED_HOSTS", "a.example,*.example"),
            ("DJANGO_ALLOWED_HOSTS", "::1"),
        ],
    )
    def test_it_is_refused_where_it_can_be_read_in_two_ways(
        self, read_settings: Callable[..., dict[str, Any]], name: str, value: str
    ) -> None:
        with pytest.raises(ImproperlyConfigured) as refused:
            read_settings(**{name: value})

        sentence = str(refused.value)
        assert sentence.startswith(name)
        assert sentence.endswith(".")
        assert "hidden-word" not in sentence

    @pytest.mark.parametrize(
        "value",
        ["https://api.stripe.com", "https://stripe.example:8443/base", "http://127.0.0.1:12111",
         "http://[::1]:1", "HTTP://LOCALHOST", "http://127.8.8.8"],
    )  # fmt: skip
    def test_a_plain_one_is_taken_as_it_is(
        self, read_settings: Callable[..., dict[str, Any]], value: str
    ) -> None:
        assert read_settings(STRIPE_API_BASE=f"{value}/")["STRIPE_API_BASE"] == value

    @pytest.mark.parametrize(
        "value",
        ["amqp://user:p%40ss%3Bword@host:5672/%2F", "amqps://a.example/;amqps://b.example:5671/v",
         "amqp://", "amqp://user@[::1]:5672//"],
    )  # fmt: skip
    def test_a_brokers_may_name_a_user_and_be_several(
        self, read_settings: Callable[..., dict[str, Any]], value: str
    ) -> None:
        read_settings(RABBITMQ_URL=value)

        assert servers.broker_url() == value


class TestConnectionsInTheClear:
    """In production they stay on this machine, unless somebody has said that they are meant."""

    SOCKETS = ("postgres:///name", "postgres://%2Fvar%2Frun%2Fpostgresql/name")
    HERE = ("localhost", "127.0.0.1", "127.8.8.8", "[::1]")

    @pytest.mark.parametrize(
        "url",
        [
            "amqp://user:hidden-word@host/",
            "amqp://user:hidden-word@10.0.0.1:5672/",
            "amqps://user:hidden-word@host/;amqp://user:hidden-word@other/",
            "amqp://localhost/; amqp://user:hidden-word@other/",
            "amqp://user:hidden-word@localhost.example/",
        ],
    )
    def test_a_broker_elsewhere_needs_tls_or_a_word(
        self, read_settings: Callable[..., dict[str, Any]], url: str
    ) -> None:
        with pytest.raises(ImproperlyConfigured) as refused:
            read_settings(**PRODUCTION | {"RABBITMQ_URL": url})

        assert str(refused.value).startswith("RABBITMQ_URL names ")
        assert "PLAINTEXT_NETWORK=1" in str(refused.value)
        assert "hidden-word" not in str(refused.value)
        read_settings(**PRODUCTION | {"RABBITMQ_URL": url, "PLAINTEXT_NETWORK": "1"})
        read_settings(RABBITMQ_URL=url)  # in development

    @pytest.mark.parametrize(
        "url",
        [
            "postgres://user:hidden-word@host/name",
            "postgres://user:hidden-word@host/name?sslmode=prefer",
            "postgres://user:hidden-word@host/name?sslmode=disable",
            "postgres://user:hidden-word@host/name?sslmode=allow",
            "postgres://user:hidden-word@/name?host=host",
            "postgres://user:hidden-word@/name?hostaddr=10.0.0.1",
            "postgres://user:hidden-word@localhost/name?hostaddr=10.0.0.1",
            "postgres://user:hidden-word@localhost,host/name",
            "postgres:///name?service=elsewhere",
        ],
    )
    def test_a_database_elsewhere_needs_tls_or_a_word(
        self, read_settings: Callable[..., dict[str, Any]], url: str
    ) -> None:
        with pytest.raises(ImproperlyConfigured) as refused:
            read_settings(**PRODUCTION | {"DATABASE_URL": url})

        assert str(refused.value).startswith("DATABASE_URL names ")
        assert "PLAINTEXT_NETWORK=1" in str(refused.value)
        assert "hidden-word" not in str(refused.value)
        read_settings(**PRODUCTION | {"DATABASE_URL": url, "PLAINTEXT_NETWORK": "1"})
        read_settings(DATABASE_URL=url)  # in development

    @pytest.mark.parametrize(
        "url",
        [
            *SOCKETS,
            *(f"postgres://user@{host}/name" for host in HERE),
            *(f"postgres://host/name?sslmode={mode}" for mode in ("require", "verify-full")),
        ],
    )
    def test_a_database_here_or_under_tls_needs_none(
        self, read_settings: Callable[..., dict[str, Any]], url: str
    ) -> None:
        assert read_settings(**PRODUCTION | {"DATABASE_URL": url})["DATABASES"]

    @pytest.mark.parametrize("host", HERE)
    def test_a_broker_here_needs_none(
        self, read_settings: Callable[..., dict[str, Any]], host: str
    ) -> None:
        read_settings(**PRODUCTION | {"RABBITMQ_URL": f"amqp://user:pass@{host}:5672/"})

        assert servers.broker_url() == f"amqp://user:pass@{host}:5672/"

    @pytest.mark.parametrize(
        ("variable", "value", "refused"),
        [("PGHOST", "elsewhere", True), ("PGHOST", "/run", False), ("PGSERVICE", "x", True)],
    )
    def test_the_environment_of_libpq_counts(
        self,
        read_settings: Callable[..., dict[str, Any]],
        variable: str,
        value: str,
        refused: bool,
    ) -> None:
        named = PRODUCTION | {"DATABASE_URL": "postgres:///name", variable: value}
        if refused:
            with pytest.raises(ImproperlyConfigured, match=r"^DATABASE_URL names "):
                read_settings(**named)
            named["PGSSLMODE"] = "verify-full"

        assert read_settings(**named)["DATABASES"]

    def test_no_host_of_the_web_is_open(self, read_settings: Callable[..., dict[str, Any]]) -> None:
        with pytest.raises(ImproperlyConfigured, match=r"^DJANGO_ALLOWED_HOSTS names '\*'"):
            read_settings(**PRODUCTION | {"DJANGO_ALLOWED_HOSTS": "*"})

        assert read_settings(DJANGO_ALLOWED_HOSTS="*")["ALLOWED_HOSTS"] == ["*"]


class TestOurNameForMailServers:
    @pytest.mark.parametrize(
        "value",
        [
            "mail.example.com",
            "web-1",
            "xn--t-9fab.example",
            "[192.0.2.1]",
            "[IPv6:2001:db8::1]",
            "",
        ],
    )
    def test_it_is_a_host_or_an_address_literal(
        self, read_settings: Callable[..., dict[str, Any]], value: str
    ) -> None:
        assert read_settings(SMTP_EHLO=value)["SMTP_EHLO"] == value

    @pytest.mark.parametrize(
        "value",
        ["192.0.2.1", "::1", "[2001:db8::1]", "[IPv6:192.0.2.1]", "[x]", "a b", "a..b", "é.example",
         "a.example:25", "a\r\nMAIL FROM:<x>"],
    )  # fmt: skip
    def test_anything_else_is_refused(
        self, read_settings: Callable[..., dict[str, Any]], value: str
    ) -> None:
        with pytest.raises(ImproperlyConfigured, match=r"^SMTP_EHLO is .* set it to this machine"):
            read_settings(SMTP_EHLO=value)
