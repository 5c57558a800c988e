"""The roles: what each may see, decide and change in the admin, and that it may nothing else."""

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from celery import current_app
from django.apps import apps
from django.contrib.auth.models import Group, Permission, User
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.urls import reverse

from booking_platform.messaging import broker
from booking_platform.messaging.models import DeadLetter, Heartbeat, OutboxRow, ProcessedEvent
from booking_platform.operations.models import AuditRun, Tally
from catalog.models import Reservation, Tour
from notifications.models import CancellationEmail
from payments.models import Refund
from tests import events
from tests.factories import EmailFactory, RefundFactory, TourFactory
from tests.integration.admin_pages import (
    REFUNDS,
    a_parked_event,
    choose,
    columns_of,
    filled_in,
    listing,
    messages,
    page,
    parked,
)

pytestmark = pytest.mark.django_db(transaction=True)

ROLES = ("reader", "operator", "finance")
SEEN = (
    Tour, Reservation, ProcessedEvent, DeadLetter, Refund, CancellationEmail,
    AuditRun, Heartbeat, OutboxRow, Tally,
)  # fmt: skip

# What may be decided about each kind of record, and who may.
DECISIONS: dict[type[Model], dict[str, set[str]]] = {
    DeadLetter: {
        "replay": {"operator", "finance"},
        "discard": {"operator"},
        "edit": {"operator"},
        "send_again": {"operator"},
    },
    CancellationEmail: {"resend": {"operator"}, "settle": {"operator"}},
    Refund: {how: {"finance"} for how in ("try_now", "settle", "reissue", "approve")},
}


# Whose tests are elsewhere: they need what a list has not.
NEEDING_MORE = ("reissue", "approve", "edit", "send_again")


def make() -> None:
    """Make the roles as the migrations do; tests before this one may have emptied the tables."""
    migrations, editor = (
        "booking_platform.operations.migrations",
        SimpleNamespace(connection=connection),
    )
    import_module(f"{migrations}.0002_roles").make_roles(apps, editor)
    import_module(f"{migrations}.0003_bulk_jobs").give_rights(apps, editor)
    import_module(f"{migrations}.0005_tallies").show_more(apps, editor)


@pytest.fixture(autouse=True)
def _roles() -> None:
    make()
    with current_app.connection_for_write() as opened:
        broker.declare(opened)


def person(role: str) -> Client:
    user = User.objects.create_user(role, is_staff=True)
    user.groups.add(Group.objects.get(name=role))
    client = Client()
    client.force_login(user)
    return client


def records() -> dict[type[Model], Model]:
    return {
        DeadLetter: a_parked_event(),
        CancellationEmail: EmailFactory.create(state="failed"),
        Refund: RefundFactory.create(needs_review=True, review_code="above_limit"),
    }


def offered(client: Client, model: type[Model]) -> set[str]:
    form = client.get(listing(model)).context["action_form"]
    return {name for name, _ in form.fields["action"].choices if name} if form else set()


@pytest.mark.parametrize("role", ROLES)
class TestEachRole:
    def test_it_sees_all_records_and_no_people(self, role: str) -> None:
        client = person(role)
        for model in SEEN:
            assert client.get(listing(model)).status_code == 200
        for people in (User, Group):
            assert client.get(listing(people)).status_code == 403

    def test_it_is_offered_its_decisions_and_others_have_no_effect(self, role: str) -> None:
        client = person(role)
        for model, record in records().items():
            its = {action for action, who in DECISIONS[model].items() if role in who}
            assert offered(client, model) == its
            before = columns_of(record)
            for action in DECISIONS[model].keys() - its:
                choose(client, action, record, why="forged", confirmed="1")
            assert columns_of(record) == before

    def test_its_decisions_have_an_effect(self, role: str) -> None:
        client = person(role)
        for model, decisions in DECISIONS.items():
            for action in decisions:
                if role in decisions[action] and action not in NEEDING_MORE:
                    record = records()[model]
                    before = columns_of(record)
                    asked = choose(client, action, record)
                    if asked.context and "form" in asked.context:
                        choose(client, action, record, why="decided", confirmed="1", **shown(asked))
                    assert columns_of(record) != before, (model, action, messages(asked))
                    model._default_manager.all().delete()

    def test_only_an_operator_changes_and_adds_tours(self, role: str) -> None:
        client, tour = person(role), TourFactory.create(capacity=20)
        shown = client.get(page(tour))
        assert shown.status_code == 200
        may = role == "operator"
        data = filled_in(shown, capacity=25) if may else {"name": tour.name, "capacity": 25}
        assert client.post(page(tour), data).status_code == (302 if may else 403)
        tour.refresh_from_db()
        assert tour.capacity == (25 if may else 20)
        added = client.get(reverse("admin:catalog_tour_add"))
        assert added.status_code == (200 if may else 403)
        assert client.post(page(tour, "delete"), {"post": "yes"}).status_code == 403

    def test_only_finance_replays_into_the_queue_of_the_refunds(self, role: str) -> None:
        letter = parked(events.body({"eventId": "evt-money"}), REFUNDS)
        answer = choose(person(role), "replay", letter, why="", confirmed="1")
        letter.refresh_from_db()
        assert letter.state == ("replayed" if role == "finance" else "parked")
        if role == "operator":
            assert "you need the permission payments.request_refund" in messages(answer)


def shown(asked: Any) -> dict[str, Any]:
    """Return what a confirmation says it has shown."""
    form = asked.context["form"]
    return {name: form[name].value() for name in form.fields if name != "why"}


class TestTheMigration:
    def test_it_makes_them_with_rights_that_there_are(self) -> None:
        assert set(Group.objects.values_list("name", flat=True)) == set(ROLES)
        names = Permission.objects.filter(group__name="finance").values_list("name", flat=True)
        assert "Can let refunds go out that wait for a person" in names
        assert "Can view cancellation e-mail" in names
        assert Permission.objects.filter(codename="view_refund").count() == 1

    def test_it_keeps_what_an_administrator_changed(self) -> None:
        reader = Group.objects.get(name="reader")
        reader.permissions.set(Permission.objects.filter(codename="view_tour"))
        Group.objects.get(name="finance").delete()
        make()
        assert [each.codename for each in reader.permissions.all()] == ["view_tour"]
        assert Group.objects.get(name="finance").permissions.count() == 17
