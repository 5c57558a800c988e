"""What Django, Celery and the platform log of real mishaps: no address, and no refused row."""

import io
from collections.abc import Iterator

import pytest
from celery import shared_task
from django.db import IntegrityError, connection
from django.test import Client

from notifications.models import CancellationEmail
from tests import events
from tests.factories import EmailFactory
from tests.integration.admin_pages import CREATED, parked
from tests.telemetry import log_in_form

pytestmark = pytest.mark.django_db(transaction=True)

ANNA = "anna@example.com"


@pytest.fixture(params=[True, False], ids=["json", "readable"])
def lines(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """What is logged, as one of the two forms has it."""
    with log_in_form(json=request.param) as written:
        yield written


@shared_task
def refused_row(number: int) -> None:
    """Write what the database refuses, and says why."""
    CancellationEmail.objects.filter(pk=number).update(state="nonsense")


def test_celerys_line_of_a_refused_row(lines: io.StringIO) -> None:
    row = EmailFactory.create(recipient=ANNA, subject="Hello Ann S.", text_body="a\n\nfor Ann S.")

    failed = refused_row.apply((row.pk,))

    assert isinstance(failed.result, IntegrityError)
    if connection.vendor == "postgresql":  # the control: the error itself holds the row
        assert ANNA in str(failed.result)
    said = lines.getvalue()
    assert "raised unexpected" in said
    assert "constraint" in said
    for hidden in (ANNA, "Ann S."):
        assert hidden not in said


def test_djangos_line_of_an_address_in_the_query(lines: io.StringIO, admin_client: Client) -> None:
    admin_client.get("/admin/nothing/", {"q": ANNA})
    admin_client.get(f"/admin/catalog/tour/?q=%00{ANNA}")

    said = lines.getvalue()
    assert "Not Found: /admin/nothing/" in said
    assert "Bad Request: /admin/catalog/tour/" in said
    assert "WSGIRequest" in said
    assert "anna" not in said


@pytest.mark.parametrize("field", ["tourId", "seatsBooked", "bookingId"])
def test_our_line_of_an_address_in_the_wrong_field(lines: io.StringIO, field: str) -> None:
    event = events.created(1, "BK-1")
    event["payload"][field] = [ANNA]

    letter = parked(event, CREATED)

    assert ANNA in letter.detail  # the body beside it has it anyhow
    assert "Event parked" in lines.getvalue()
    assert "anna" not in lines.getvalue()
