"""The API is off unless the environment asks for it, and says whose web pages may ask it."""

import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from tests.unit.environments import PRODUCTION

Settings = Callable[..., dict[str, Any]]
Python = Callable[..., subprocess.CompletedProcess[str]]

CORS = "corsheaders.middleware.CorsMiddleware"
WHAT_IS_LOADED = """
import sys, django
django.setup()
from django.urls import get_resolver
patterns = get_resolver().url_patterns
from booking_platform import wsgi
print(sorted({"ninja", "pydantic", "corsheaders", "catalog.api"} & set(sys.modules)))
"""


class TestWhetherItIsOn:
    def test_it_is_off_by_default_and_then_costs_nothing(self, python: Python) -> None:
        done = python("-c", WHAT_IS_LOADED)

        assert (done.stdout, done.stderr, done.returncode) == ("[]\n", "", 0)

    def test_it_is_on_where_that_is_asked_for(self, python: Python) -> None:
        done = python("-c", WHAT_IS_LOADED, API_ENABLED="true", API_CORS_ORIGINS="*")

        loaded = "['catalog.api', 'corsheaders', 'ninja', 'pydantic']\n"
        assert (done.stdout, done.stderr, done.returncode) == (loaded, "", 0)

    @pytest.mark.parametrize(
        ("value", "on"), [("true", True), ("1", True), ("false", False), ("0", False), ("", False)]
    )
    def test_the_word_for_it(self, read_settings: Settings, value: str, on: bool) -> None:
        settings = read_settings(API_ENABLED=value)

        assert settings["API_ENABLED"] is on
        assert ("catalog.api.problems.ApiAnswers" in settings["MIDDLEWARE"]) is on

    @pytest.mark.parametrize("value", ["yes", "True", "on", "2"])
    def test_any_other_word_is_refused(self, read_settings: Settings, value: str) -> None:
        with pytest.raises(ImproperlyConfigured) as refused:
            read_settings(API_ENABLED=value)

        assert str(refused.value) == (
            f"API_ENABLED is {value!r}: set it to one of true, false, 1, 0."
        )


class TestOrigins:
    def test_no_page_of_others_may_ask_by_default(self, read_settings: Settings) -> None:
        settings = read_settings(API_ENABLED="true")

        assert CORS not in settings["MIDDLEWARE"]
        assert "corsheaders" not in settings["INSTALLED_APPS"]

    def test_they_are_named(self, read_settings: Settings) -> None:
        origins = "https://shop.example, http://127.0.0.1:3000,http://[::1]:3000,"
        settings = read_settings(API_ENABLED="true", API_CORS_ORIGINS=origins)

        assert settings["CORS_ALLOWED_ORIGINS"] == [
            "https://shop.example", "http://127.0.0.1:3000", "http://[::1]:3000",
        ]  # fmt: skip
        assert not settings["CORS_ALLOW_ALL_ORIGINS"]
        assert settings["CORS_URLS_REGEX"] == "^/api/"
        assert settings["MIDDLEWARE"].index(CORS) < settings["MIDDLEWARE"].index(
            "catalog.api.problems.ApiAnswers"
        )

    def test_they_may_be_all(self, read_settings: Settings) -> None:
        settings = read_settings(API_ENABLED="true", API_CORS_ORIGINS="*")

        assert settings["CORS_ALLOW_ALL_ORIGINS"]
        assert "CORS_ALLOW_CREDENTIALS" not in settings

    def test_without_the_api_there_is_nothing_to_ask(self, read_settings: Settings) -> None:
        settings = read_settings(API_CORS_ORIGINS="https://shop.example")

        assert CORS not in settings["MIDDLEWARE"]

    @pytest.mark.parametrize(
        "origin",
        [
            "shop.example",
            "https://shop.example/",
            "https://shop.example/path",
            "https://Shop.example",
            "https://shop.example:443",
            "http://shop.example:80",
            "https://*.example",
            "https://user:hidden-word@shop.example",
            "https://shop.example?x",
            "ftp://shop.example",
            "https://",
            "null",
            "*,https://shop.example",
            "https://a.example https://b.example",
        ],
    )
    @pytest.mark.parametrize("enabled", ["true", "false"])
    def test_what_no_browser_sends_is_refused(
        self, read_settings: Settings, origin: str, enabled: str
    ) -> None:
        with pytest.raises(ImproperlyConfigured) as refused:
            read_settings(API_ENABLED=enabled, API_CORS_ORIGINS=origin)

        sentence = str(refused.value)
        assert sentence.startswith("API_CORS_ORIGINS names ")
        assert sentence.endswith("with commas between, or to * for all.")
        assert "hidden-word" not in sentence

    def test_production_takes_the_same(self, read_settings: Settings) -> None:
        settings = read_settings(
            **PRODUCTION,
            EMAIL_FROM="noreply@example.com",
            API_ENABLED="true",
            API_CORS_ORIGINS="https://shop.example",
        )

        assert settings["CORS_ALLOWED_ORIGINS"] == ["https://shop.example"]
        assert settings["SECURE_SSL_REDIRECT"]
