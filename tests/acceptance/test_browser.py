"""The admin in Chromium: no page has errors, foreign requests, cut columns or serious findings of axe."""

import re
from collections.abc import Iterator

import pytest
from django.contrib.auth.models import Group, User
from playwright.sync_api import Browser

from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from booking_platform.operations.records import story_address
from catalog.models import Reservation, Tour
from notifications.models import CancellationEmail
from payments.models import Refund
from tests import events
from tests.browser import NARROW, WIDE, chromium, person
from tests.factories import TourFactory
from tests.integration.admin_pages import (
    CANCELLED,
    CREATED,
    a_parked_event,
    listing,
    page,
    parked,
    settle,
)
from tests.integration.email_rows import uncertain
from tests.integration.refund_rows import completed, refused

WINDOWS = [(width, scheme) for width in (WIDE, NARROW) for scheme in ("light", "dark")]
PASSWORD = "correct horse battery"
LONG = "booking-" + "x" * 240

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser, pytest.MonkeyPatch.context() as patched:
        patched.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")  # Playwright's loop runs in this thread
        yield browser


@pytest.fixture
def admin(transactional_db: None) -> User:
    return User.objects.create_superuser("admin", password=PASSWORD)


def a_bit_of_everything() -> None:
    """Make records of each kind, some with ids as long as they may be."""
    tour = TourFactory.create(capacity=3, name="Walk along the Seine")
    for number, booking in enumerate(("BK-1", "BK-2", LONG)):
        settle(CREATED, events.created(tour.pk, booking, seats=number + 1))
    settle(CANCELLED, events.cancelled(tour.pk, "BK-1"))
    a_parked_event()
    parked(b'{"eventId": "' + b"e" * 200 + b'", "payload":')
    refused(booking_id="BK-1", last_error="charge already refunded " * 10)
    completed(booking_id=LONG)
    uncertain(booking_id="BK-1")
    Group.objects.get_or_create(name="reader")


def pages() -> list[str]:
    """Return the address of each list, and of a record of each."""
    kinds = (Tour, Reservation, Refund, CancellationEmail, DeadLetter, ProcessedEvent, User, Group)
    records = [kind._default_manager.latest("pk") for kind in kinds]
    stories = map(story_address, ("BK-1", LONG, "nothing-of-this-id"))
    return ["/admin/", *map(listing, records), *map(page, records), *stories]


@pytest.mark.parametrize(("width", "scheme"), WINDOWS)
def test_no_page_has_anything_wrong_with_it(
    browser: Browser, live_server: object, admin: User, width: int, scheme: str
) -> None:
    a_bit_of_everything()
    with person(browser, str(live_server), width=width, scheme=scheme) as somebody:
        somebody.log_in("admin", PASSWORD)
        for address in pages():
            somebody.go(address)
            name = re.sub(r"[/?=]+", "-", address.strip("/"))[:60]
            somebody.look(name.removesuffix("-change") if "change" in name else f"{name}-list")
        assert not somebody.problems, "\n".join(somebody.problems)


@pytest.mark.parametrize(("width", "scheme"), WINDOWS)
def test_an_overbooked_tour_shows_its_history_and_keeps_what_others_changed(
    browser: Browser, live_server: object, admin: User, width: int, scheme: str
) -> None:
    tour = TourFactory.create(capacity=12, description="Two\nlines", name="Walk along the Seine")
    for number, booking in enumerate(("BK-1", "BK-2", LONG)):
        settle(
            CREATED, events.created(tour.pk, booking, seats=number + 2, event_id=f"{number}" * 255)
        )
    settle(CREATED, *[events.created(tour.pk, f"BK-1{number}") for number in range(9)])
    with person(browser, str(live_server), width=width, scheme=scheme) as somebody:
        somebody.log_in("admin", PASSWORD)
        somebody.go(page(tour))
        Tour.objects.get(pk=tour.pk).save(by="ada")  # a colleague, who changes nothing
        somebody.page.fill("#id_capacity", "7")
        somebody.page.fill("#id_description", "Three\nother\nlines")
        somebody.page.click("button[name=_continue]")
        somebody.page.wait_for_selector("text=is overbooked")
        somebody.page.click("text=The plot as a table")
        somebody.look("tour-overbooked")

        tour.refresh_from_db()
        tour.capacity = 30
        tour.save(by="ada")
        somebody.page.fill("#id_capacity", "8")
        somebody.page.click("button[name=_continue]")
        somebody.page.wait_for_selector("text=Capacity is 30 by now")
        somebody.look("tour-refused")
        assert not somebody.problems, "\n".join(somebody.problems)
    tour.refresh_from_db()
    assert tour.capacity == 30
    assert tour.description.split() == ["Three", "other", "lines"]
