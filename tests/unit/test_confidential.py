"""Secrets: what Django and Celery print of the settings, of errors and of their connections."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings as live
from django.test import RequestFactory
from django.views.debug import technical_500_response

from booking_platform import confidential
from booking_platform.celery import DiscreetConnection
from tests.unit.environments import MAIL, PRODUCTION, STRIPE

WORD = "hidden-word"
SECRETS = {
    "DJANGO_SECRET_KEY": f"{WORD}-{PRODUCTION['DJANGO_SECRET_KEY']}",
    "DATABASE_URL": f"postgres://user:{WORD}%40@host/name?sslmode=require&sslpassword={WORD}-3",
    "RABBITMQ_URL": f"amqps://user:{WORD}-1@a.example/;amqps://user:{WORD}-2@b.example/",
    "STRIPE_SECRET_KEY": f"sk_live_{WORD}",
    "STRIPE_WEBHOOK_SECRET": f"whsec_{WORD}",
    "SMTP_USER": "ann",
    "SMTP_PASS": WORD,
}
DEPLOYED = PRODUCTION | STRIPE | MAIL | SECRETS

# What a worker answers to `inspect conf`, in JSON as it goes out.
CONF = """
import django; django.setup()
from types import SimpleNamespace
from celery.worker import control
from kombu.utils.json import dumps
from booking_platform.celery import app
print(dumps(control.conf(SimpleNamespace(app=app), with_defaults=True)))
"""

# An error page of a web process whose server adds the environment to the request, as runserver does.
PAGE = """
import os, sys, django; django.setup()
from django.conf import settings
from django.test import RequestFactory
from django.views.debug import get_exception_reporter_class
request = RequestFactory().get("/", **os.environ)
request.META |= os.environ
def fail(url, settings):
    every = {name: getattr(settings, name) for name in dir(settings) if name.isupper()}
    raise ValueError(f"can't connect to {url}")
for debug in (False, True):
    settings.DEBUG = debug
    try:
        fail(os.environ["RABBITMQ_URL"], settings)
    except ValueError:
        reporter = get_exception_reporter_class(request)(request, *sys.exc_info())
        print(reporter.get_traceback_html(), reporter.get_traceback_text())
"""


class TestWhatIsPrinted:
    @pytest.mark.parametrize(
        ("command", "there"),
        [
            (("-m", "celery", "-A", "booking_platform", "report"), "EVENTS_EXCHANGE"),
            (("manage.py", "diffsettings", "--all"), "EVENTS_EXCHANGE"),
            (("-c", CONF), "EVENTS_EXCHANGE"),
            (("-c", PAGE), "connect to amqps://***@a.example/;amqps://***@b.example/"),
        ],
        ids=["celery report", "diffsettings", "inspect conf", "error page"],
    )
    def test_it_holds_no_secret(
        self,
        python: Callable[..., subprocess.CompletedProcess[str]],
        command: tuple[str, ...],
        there: str,
    ) -> None:
        done = python(*command, **DEPLOYED)

        assert done.returncode == 0, done.stderr
        assert there in done.stdout
        assert WORD not in done.stdout + done.stderr

    def test_inspect_stats_shows_no_password_of_another_broker(self) -> None:
        shown = DiscreetConnection(SECRETS["RABBITMQ_URL"]).info()

        shown.pop("password")  # as Celery does before it answers
        assert "b.example" in json.dumps(shown, default=str)
        assert WORD not in json.dumps(shown, default=str)

    def test_a_connection_can_still_be_copied(self) -> None:
        copied = DiscreetConnection(SECRETS["RABBITMQ_URL"]).clone()

        assert copied.password == f"{WORD}-1"
        assert copied.alt == SECRETS["RABBITMQ_URL"].split(";")


class TestASecret:
    def test_it_is_its_text_and_prints_as_stars(self) -> None:
        secret = confidential.Text("word")

        assert (secret, str(secret), f"{secret}") == ("word", "word", "word")
        assert repr([secret]) == "['***']"
        assert repr(pickle.loads(pickle.dumps(secret))) == "'***'"  # noqa: S301  (our own)
        assert (repr(confidential.Text()), bool(confidential.Text())) == ("''", False)

    @pytest.mark.parametrize(
        "written",
        ["{}", "x{}y", "amqp://user:{}@host/", '"{}"', "a\\n{}"],
    )
    def test_it_is_masked_wherever_it_is_written(self, written: str) -> None:
        confidential.remember("pa'ss&word é/1")

        for form in ("pa'ss&word é/1", "pa%27ss%26word%20%C3%A9%2F1", "pa&#x27;ss&amp;word é/1"):
            assert confidential.masked(written.format(form)).count("***") == 1

    @pytest.mark.parametrize(
        ("written", "masked"),
        [
            ("amqp://guest:guest@host:5672/", "amqp://***@host:5672/"),
            ("a amqp://u:p;x@h/;amqp://u:@h b", "a amqp://***@h/;amqp://***@h b"),
            ("https://h/x:y@z", "https://h/x:y@z"),
            ("guest", "guest"),
        ],
    )
    def test_a_password_in_a_url_is_masked_though_nobody_knows_it(
        self, written: str, masked: str
    ) -> None:
        confidential.remember("guest")

        assert confidential.masked(written) == masked


class TestErrorPages:
    def test_django_uses_our_report(self) -> None:
        secret: Any = confidential.Text("a-secret-of-this-process")
        try:
            raise ValueError(f"{secret} is wrong")
        except ValueError:
            page = technical_500_response(RequestFactory().get("/"), *sys.exc_info())

        assert "is wrong" in page.content.decode()
        assert str(secret) not in page.content.decode()
        assert live.DEFAULT_EXCEPTION_REPORTER == "booking_platform.error_reports.Reporter"
