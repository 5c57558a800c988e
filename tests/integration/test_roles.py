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

from booking_platform.messaging import broker, edits
from booking_platform.messaging.models import DeadLetter, Heartbeat, OutboxRow, ProcessedEvent
from booking_platform.operations.models import AuditRun, Tally
from catalog.models import Reservation, Tour
from notifications.models import CancellationEmail
from payments.models import Refund
from tests import events
from tests.factories import EmailFactory, RefundFactory, TourFactory
from tests.integration.admin_pages import (
    CREATED,
    REFUNDS,
    a_parked_event,
    choose,
    columns_of,
    filled_in,
    listing,
    messages,
    page,
    parked,
    text,
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
        "discard": {"operator", "finance"},
        "edit": {"operator", "finance"},
        "send_again": {"operator", "finance"},
    },
    CancellationEmail: {"resend": {"operator"}, "settle": {"operator"}},
    Refund: {how: {"finance"} for how in ("try_now", "settle", "reissue", "approve")},
}


ALL = ("replay", "edit", "discard")  # of a letter that nobody has begun to edit

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

    @pytest.mark.parametrize(("how", "state"), [("replay", "replayed"), ("discard", "discarded")])
    def test_only_finance_decides_about_letters_of_the_refunds(
        self, role: str, how: str, state: str
    ) -> None:
        letter = parked(events.body({"eventId": "evt-money"}), REFUNDS)
        answer = choose(person(role), how, letter, why="decided", confirmed="1")
        letter.refresh_from_db()
        assert letter.state == (state if role == "finance" else "parked")
        if role == "operator":
            assert "you need the permission payments.request_refund" in messages(answer)
            assert "role finance" in messages(answer)

    def test_only_finance_edits_letters_of_the_refunds(self, role: str) -> None:
        event = events.cancelled(1, "BK-1", paymentId="p", amount=1, currency="euro")
        letter, client = parked(event, REFUNDS), person(role)
        address = reverse("admin:messaging_deadletter_edit", args=[letter.pk])
        typed = edits.draft(letter).replace('"euro"', '"eur"')
        client.post(address, {"text": typed, "why": "mended", "send": "1"})
        letter.refresh_from_db()
        assert letter.state == ("edited" if role == "finance" else "parked")

    def test_a_letters_page_offers_what_the_role_may_and_says_who_may_the_rest(
        self, role: str
    ) -> None:
        client = person(role)
        refunds, seats = parked(events.body({"eventId": "evt-money"}), REFUNDS), a_parked_event()
        may = {"reader": ((), ()), "operator": ((), ALL), "finance": (ALL, ALL)}[role]
        for letter, its in zip((refunds, seats), may, strict=True):
            shown = client.get(page(letter))
            assert tuple(how.action for how in shown.context["decisions"]) == its
            who = "role finance" if letter == refunds else "role finance or operator"
            told = f"You may not: Replay, Edit and replay, Discard ({who})."
            assert (told in text(shown)) == (its == ())

    def test_a_group_offers_what_the_role_may(self, role: str) -> None:
        parked(events.body({"eventId": "evt-money"}), REFUNDS)
        a_parked_event()
        shown = person(role).get(reverse("admin:messaging_deadletter_groups"))
        offered = {
            each[0].queue: [how.action for how in each[3]] for each in shown.context["groups"]
        }
        both = ["replay", "discard"]
        assert offered == {
            REFUNDS: both if role == "finance" else [],
            CREATED: [] if role == "reader" else both,
        }
        told = "role finance" in text(shown)
        assert told == (role == "operator")  # a reader is offered nothing at all

    def test_a_page_that_it_may_not_see_says_so_and_whom_to_ask(self, role: str) -> None:
        refused = person(role).get(listing(User))
        assert refused.status_code == 403
        said = refused.content.decode()
        assert "You may not open this page" in said
        assert f"the role <strong>{role}</strong>" in said
        assert f'href="{reverse("admin:index")}"' in said


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
        assert Group.objects.get(name="finance").permissions.count() == 19
