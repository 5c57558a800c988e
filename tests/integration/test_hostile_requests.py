"""What anybody can type into an address bar: every registered admin answers, and never with 500."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib import admin
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.utils import quote as as_pk
from django.contrib.auth.models import Group, User
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.db.models import Model
from django.test import Client
from django.urls import reverse

from booking_platform.messaging import clock
from booking_platform.messaging.models import DeadLetter, Heartbeat
from booking_platform.operations import auditing
from booking_platform.operations.models import BulkJob, Tally
from catalog.models import Tour
from payments.models import Refund
from tests import events
from tests.factories import TourFactory
from tests.integration.admin_pages import CANCELLED, CREATED, a_parked_event, listing, settle

pytestmark = pytest.mark.django_db

ALL = sorted(admin.site._registry, key=lambda model: model._meta.label)
# SQLite refuses little of what PostgreSQL does, and a page takes as long to make: some are enough there.
MODELS = ALL if connection.vendor == "postgresql" else [Tour, DeadLetter, Refund]
DIGITS = 5_000

HOSTILE = {
    "NUL": "a%00b",
    "digits": "9" * DIGITS,
    "a large integer": str(2**63),
    "a lone surrogate": "%ED%A0%80",
    "a surrogate as text": r"\ud800",
    "other digits": quote("४२²"),
    "nothing": "",
    "a word": "abc",
    "a far date": "999999999-01-01",
    "long": "a" * 20_000,
    "invisible": quote("\u200b\u202e"),
}
PARAMETERS = (
    "q", "p", "o", "all", "e", "_popup", "_to_field", "_changelist_filters", "nonsense",
    "id", "id__in", "id__isnull", "id__range", "id__regex",
)  # fmt: skip


@pytest.fixture
def client(admin_client: Client) -> Client:
    """A superuser's browser, which is shown what a visitor would be: no exception, but its page."""
    admin_client.raise_request_exception = False
    return admin_client


@pytest.fixture
def records(admin_user: User) -> dict[type[Model], Model]:
    """A record of each model that is registered."""
    tour = TourFactory.create()
    settle(CREATED, events.created(tour.pk, "BK-1"))
    cancelled = events.cancelled(
        tour.pk, "BK-1", paymentId="pi_1", amount=10.0, userEmail="anna@example.com"
    )
    settle(CANCELLED, cancelled)
    for queue in ("payment-gateway.booking-cancelled", "notification.booking-cancelled"):
        settle(queue, cancelled)
    a_parked_event()
    Group.objects.create(name="staff")
    now = clock.now()
    Heartbeat.objects.create(queue="catalog", worker="worker@host", seen_at=now)
    Tally.objects.create(kind="outcomes", minute=now, subject=CREATED, word="reserved", count=1)
    BulkJob.objects.create(kind="replay", selection={}, newest=1, user=admin_user, total=1)
    auditing.run()
    LogEntry.objects.create(
        user=admin_user,
        content_type=ContentType.objects.get_for_model(tour),
        object_id=str(tour.pk),
        action_flag=CHANGE,
    )
    return {model: found for model in MODELS if (found := model._default_manager.first())}


def asked_of(model: type[Model], changelist: Any) -> Iterator[tuple[str, str]]:
    """Return what a list's address may hold: Django's own names, its filters', its columns'."""
    filters = [name for each in changelist.filter_specs for name in each.expected_parameters()]
    yield from product((*PARAMETERS, *filters), HOSTILE)
    columns = [field.name for field in model._meta.concrete_fields]
    yield from product(columns, ("NUL", "a large integer", "a lone surrogate", "a word"))


def answers(ask: Callable[[], Any]) -> bool:
    """Return whether a request is answered or refused. What it does to the database is undone."""
    with transaction.atomic():
        response = ask()
        transaction.set_rollback(True)
    return response.status_code in (200, 302, 400, 403, 404, 429)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.label)
class TestEveryAdmin:
    def test_its_list_answers_any_address(
        self, client: Client, records: dict[type[Model], Model], model: type[Model]
    ) -> None:
        plain = client.get(listing(model))
        failed = [
            f"{name}={what}"
            for name, what in asked_of(model, plain.context["cl"])
            if not answers(partial(client.get, f"{listing(model)}?{name}={HOSTILE[what]}"))
        ]
        assert not failed

    def test_its_pages_answer_any_id(
        self, client: Client, records: dict[type[Model], Model], model: type[Model]
    ) -> None:
        place = listing(model)
        failed = [
            f"{what}{view}"
            for view in ("change/", "history/", "delete/", "")
            for what, value in HOSTILE.items()
            if not answers(partial(client.get, f"{place}{value}/{view}"))
        ]
        assert not failed

    def test_its_pages_answer_any_address(
        self, client: Client, records: dict[type[Model], Model], model: type[Model]
    ) -> None:
        record = records[model]
        failed = []
        for view in ("change", "history", "add"):
            name = f"admin:{model._meta.app_label}_{model._meta.model_name}_{view}"
            page = reverse(name, args=[] if view == "add" else [as_pk(str(record.pk))])
            for parameter in ("p", "_changelist_filters", "_popup", "_to_field"):
                for what, value in HOSTILE.items():
                    if not answers(partial(client.get, f"{page}?{parameter}={value}")):
                        failed.append(f"{view}?{parameter}={what}")
        assert not failed

    def test_its_actions_answer_any_selection(
        self, client: Client, records: dict[type[Model], Model], model: type[Model]
    ) -> None:
        actions = admin.site._registry[model].get_actions(client.get("/admin/").wsgi_request)
        failed = []
        for action in (*actions, "nonsense", "a%00b"):
            for field in ("_selected_action", "select_across", "index", "why", "seen"):
                for what, value in HOSTILE.items():
                    chosen = f"action={action}&_selected_action=1&{field}={value}&confirmed=1"
                    form = "application/x-www-form-urlencoded"
                    if not answers(partial(client.post, listing(model), chosen, content_type=form)):
                        failed.append(f"{action}: {field}={what}")
        assert not failed


class TestSharedPages:
    @pytest.mark.parametrize("field", ["app_label", "model_name", "field_name", "term", "p"])
    def test_autocomplete_answers_anything(self, client: Client, field: str) -> None:
        usual = {"app_label": "catalog", "model_name": "reservation", "field_name": "tour"}
        page = reverse("admin:autocomplete")
        failed = []
        for what, value in HOSTILE.items():
            others = "&".join(f"{name}={text}" for name, text in usual.items() if name != field)
            if not answers(partial(client.get, f"{page}?{others}&{field}={value}")):
                failed.append(what)
        assert not failed

    @pytest.mark.parametrize(
        "place", ["/admin/login/?next=", "/admin/?x=", "/admin/jsi18n/?language="]
    )
    def test_pages_without_records_answer_anything(self, client: Client, place: str) -> None:
        failed = [
            what for what, v in HOSTILE.items() if not answers(partial(client.get, place + v))
        ]
        assert not failed

    @pytest.mark.parametrize(
        "key", [r'"\000abcdefgh"', r'"abcdefgh\000"', "a" * 5_000, r'"\377\376"']
    )
    def test_a_session_may_have_any_key(self, client: Client, key: str) -> None:
        client.cookies.clear()
        for place in ("/admin/", "/admin/login/"):
            assert answers(partial(client.get, place, HTTP_COOKIE=f"sessionid={key}"))

    def test_a_login_answers_anything(self, client: Client) -> None:
        client.logout()
        failed = []
        for field in ("username", "next"):
            for what, value in HOSTILE.items():
                body = f"username=&password=&{field}={value}"
                form = "application/x-www-form-urlencoded"
                if not answers(partial(client.post, "/admin/login/", body, content_type=form)):
                    failed.append(f"{field}={what}")
        assert not failed
