"""What a database URL means, and what its options become."""

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from booking_platform import databases
from booking_platform.postgresql.parameters import LIMITS, from_options

POSTGRES = "postgres://user:word@host:5432/name"


def options(query: str) -> dict[str, Any]:
    found: dict[str, Any] = databases.from_url(f"{POSTGRES}?{query}")["OPTIONS"]
    return found


class TestPostgreSQL:
    def test_its_sessions_are_bounded(self) -> None:
        entry = databases.from_url(POSTGRES)
        assert entry["ENGINE"] == "booking_platform.postgresql"
        assert entry["OPTIONS"]["parameters"] == LIMITS
        assert "options" not in entry["OPTIONS"]

    @pytest.mark.parametrize(
        ("query", "named"),
        [
            ("options=-c%20search_path%3Da,b", {"search_path": "a,b"}),
            ("currentSchema=a", {"search_path": "a"}),
            ("options=-cStatement_Timeout%3D0", {"statement_timeout": "0"}),
            ("options=-c%20a.b%3D1&options=--jit%3Doff", {"a.b": "1", "jit": "off"}),
            ("options=5", {}),
        ],
    )
    def test_the_url_adds_to_its_parameters(self, query: str, named: dict[str, str]) -> None:
        assert options(query)["parameters"] == LIMITS | named

    def test_what_else_the_url_names_goes_before_ours(self) -> None:
        found = options("connect_timeout=9&sslmode=require&prepare_threshold=none")
        assert (found["connect_timeout"], found["sslmode"]) == (9, "require")
        assert found["prepare_threshold"] is None
        assert found["server_side_binding"] is True
        assert found["parameters"] == LIMITS

    @pytest.mark.parametrize("value", ["false", "0", "1"])
    def test_parameters_that_would_be_written_as_text_are_refused(self, value: str) -> None:
        """Rows are arrays in binary, which have no other form."""
        with pytest.raises(ImproperlyConfigured, match="turns server_side_binding off"):
            options(f"server_side_binding={value}")


class TestSQLite:
    def test_it_takes_the_lock_first(self) -> None:
        assert databases.from_url("sqlite:////a/b")["OPTIONS"]["transaction_mode"] == "IMMEDIATE"

    def test_the_url_goes_before_ours(self) -> None:
        found = databases.from_url("sqlite:////a/b?timeout=3")["OPTIONS"]
        assert (found["timeout"], found["transaction_mode"]) == (3, "IMMEDIATE")


@pytest.mark.parametrize(
    "url", ["", "x", "mysql://u:word@h/n", "postgis://u:word@h/n", "postgres://h:x/n"]
)
def test_another_is_refused_in_a_sentence(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=r"^DATABASE_URL .*\.$") as refused:
        databases.from_url(url)
    assert "word@" not in str(refused.value).replace("user:password@", "")


class TestOptions:
    @pytest.mark.parametrize(
        ("text", "parameters", "rest"),
        [
            ("", {}, ""),
            ("-c a=1 -cb=2 --c-d=3", {"a": "1", "b": "2", "c_d": "3"}, ""),
            (r"-c search_path=a,\ b -c x=\\", {"search_path": "a, b", "x": "\\"}, ""),
            ("-c a= -c b=c=d", {"a": "", "b": "c=d"}, ""),
            ("-c\ta=1\n-c a=2", {"a": "2"}, ""),
            ("-e -c a=1 -F", {"a": "1"}, "-e -F"),
            ("-c log_connections=off -c a=1", {"a": "1"}, "-c log_connections=off"),
            ("--log-connections=off", {}, "--log-connections=off"),
            ("-c a", {}, "-c a"),  # the server says what is wrong with it
            ("-c", {}, "-c "),
        ],
    )
    def test_parameters_are_taken_out(
        self, text: str, parameters: dict[str, str], rest: str
    ) -> None:
        assert from_options(text) == (parameters, rest)
