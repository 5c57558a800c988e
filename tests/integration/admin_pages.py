"""The admin's pages as tests ask for them, read them and fill them in; and what is shown there."""

import html
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from booking_platform.messaging import inbox
from booking_platform.messaging.models import DeadLetter
from booking_platform.messaging.rules import CONSUMERS
from tests import events

CREATED, CANCELLED = "tour-catalog.booking-created", "tour-catalog.booking-cancelled"
REFUNDS = "payment-gateway.booking-cancelled"
NO_TOUR = 999_999


def in_(**time: float) -> datetime:
    return timezone.now() + timedelta(**time)


# Hours and not minutes: the tests before may take long, and this module is read before them.
LATER, SOON, PAST = in_(hours=3), in_(hours=1), in_(seconds=-3)


def settle(queue: str, *given: dict[str, Any] | bytes) -> None:
    inbox.process(CONSUMERS[queue], events.deliveries(*given))


def parked(body: dict[str, Any] | bytes, queue: str = CREATED) -> DeadLetter:
    settle(queue, body)
    return DeadLetter.objects.latest("pk")


def a_parked_event(event_id: str | None = None) -> DeadLetter:
    return parked(events.created(NO_TOUR, "BK-1", event_id=event_id))


def page(record: Model, view: str = "change") -> str:
    meta = record._meta
    return reverse(f"admin:{meta.app_label}_{meta.model_name}_{view}", args=[record.pk])


def listing(model: type[Model] | Model) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


M = TypeVar("M", bound=Model)


def listed(client: Client, model: type[M], **query: Any) -> list[M]:
    """Return the records that a list shows, in the order of the list."""
    response = client.get(listing(model), query)
    assert response.status_code == 200
    return list(response.context["cl"].result_list)


def text(response: Any) -> str:
    assert response.status_code == 200
    return html.unescape(response.content.decode())


def cells(shown: str, column: str) -> list[str]:
    """Return what a list shows in a column, row by row."""
    cell = rf'<t[dh] class="[^"]*\bfield-{column}\b[^"]*"[^>]*>(.*?)</t[dh]>'
    return [found.strip() for found in re.findall(cell, shown, re.DOTALL)]


def messages(response: Any) -> str:
    return "\n".join(str(message) for message in response.context["messages"])


def moment(value: datetime) -> str:
    """Return a time as the admin's pages show it."""
    return f"{value:%Y-%m-%d %H:%M:%S} UTC"


def filled_in(response: Any, **changes: Any) -> dict[str, Any]:
    """Return what a browser sends for the form it was shown, after the person's changes."""
    data: dict[str, Any] = {}
    for field in response.context["adminform"].form:
        data[field.html_name] = field.value()
        if field.field.show_hidden_initial:
            data[field.html_initial_name] = field.value()
    return data | changes


def fields(shown: str, form: str) -> dict[str, str]:
    """Return what the browser sends of one form of a page."""
    [found] = re.findall(f"<form {form}.*?</form>", shown, re.DOTALL)
    return dict(re.findall(r'name="(\w+)" value="([^"]*)"', found))


def choose(client: Client, action: str, *rows: Model, **data: Any) -> Any:
    """Select records of a list, press the button of an action, and return the answer."""
    pks = [row.pk for row in rows]
    chosen = {"action": action, "_selected_action": pks}
    return client.post(listing(rows[0]), chosen | data, follow=True)


def confirm(client: Client, asked: Any, **answers: str) -> Any:
    """Fill in a confirmation that was shown, and send it."""
    [form] = re.findall(r'<form method="post">.*?</form>', asked.content.decode(), re.DOTALL)
    data: dict[str, list[str]] = {}
    for name, value in re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form):
        data.setdefault(name, []).append(value)
    return client.post(asked.request["PATH_INFO"], data | answers, follow=True)


def staff(*permissions: str) -> Client:
    user = User.objects.create_user("staff", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def columns_of(row: Model) -> dict[str, Any]:
    """Return the columns of a row as the database has them now."""
    return dict(type(row)._default_manager.filter(pk=row.pk).values().get())


def kept(row: Model) -> list[tuple[str, str]]:
    """Return who decided what about a row, as the admin's history has it."""
    entries = LogEntry.objects.filter(object_id=str(row.pk)).order_by("pk")
    return [(entry.user.username, entry.get_change_message()) for entry in entries]


class before:  # noqa: N801  (reads as a statement)
    """Do something once, just before the first statement of a kind is executed."""

    def __init__(self, verb: str, table: str, act: Callable[[], None]) -> None:
        self._start = f'{verb} "{table}"'
        self._act: Callable[[], None] | None = act
        self._wrapper = connection.execute_wrapper(self._execute)

    def __enter__(self) -> None:
        self._wrapper.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._wrapper.__exit__(*error)
        assert self._act is None, f"no {self._start}"

    def _execute(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if self._act is not None and sql.startswith(self._start):
            act, self._act = self._act, None
            act()
        return execute(sql, params, many, context)
