"""The admin in Chromium: no page has errors, foreign requests, cut columns or serious findings of axe."""

import re
from collections.abc import Iterator

import pytest
from django.contrib.auth.models import Group, User
from playwright.sync_api import Browser

from booking_platform.messaging import heartbeats, topology
from booking_platform.messaging.models import DeadLetter, Heartbeat, OutboxRow, ProcessedEvent
from booking_platform.messaging.tallies import CONFLICTS, DUPLICATES, Counted
from booking_platform.operations import auditing, tallies
from booking_platform.operations.models import AuditRun, Tally
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

PASSWORD = "correct horse battery"
LONG = "booking-" + "x" * 240

MIDDLE_OF_THE_LAST_BAR = """canvas => {
    const bar = Chart.getChart(canvas).getDatasetMeta(0).data.at(-1);
    return [bar.x, (bar.y + bar.base) / 2];
}"""
COLOUR_OF_THE_LEGEND = """() =>
    Chart.getChart(document.querySelector("canvas.chart")).options.plugins.legend.labels.color"""

# What a browser shows is the same on each database.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.once]


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
    for queue in topology.task_queues()[1:]:
        heartbeats.store(queue, "celery@worker-" + "x" * 100)
    tallies.add({Counted(DUPLICATES, CREATED): 3, Counted(CONFLICTS, "tour"): 1})
    tallies.count_outcomes()
    auditing.run()
    Group.objects.get_or_create(name="reader")


def pages() -> list[str]:
    """Return the address of each list, and of a record of each."""
    kinds = (
        Tour, Reservation, Refund, CancellationEmail, DeadLetter, ProcessedEvent, User, Group,
        AuditRun, OutboxRow, Heartbeat, Tally,
    )  # fmt: skip
    records = [kind._default_manager.latest("pk") for kind in kinds]
    stories = map(story_address, ("BK-1", LONG, "nothing-of-this-id"))
    return ["/admin/", *map(listing, records), *map(page, records), *stories]


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_no_page_has_anything_wrong_with_it(
    browser: Browser, live_server: object, admin: User, width: int
) -> None:
    a_bit_of_everything()
    with person(browser, str(live_server), width=width) as somebody:
        somebody.log_in("admin", PASSWORD)
        for address in pages():
            somebody.go(address)
            name = re.sub(r"[/?=]+", "-", address.strip("/"))[:60]
            somebody.look(name.removesuffix("-change") if "change" in name else f"{name}-list")
        assert not somebody.problems, "\n".join(somebody.problems)


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_an_overbooked_tour_shows_its_history_and_keeps_what_others_changed(
    browser: Browser, live_server: object, admin: User, width: int
) -> None:
    tour = TourFactory.create(capacity=12, description="Two\nlines", name="Walk along the Seine")
    for number, booking in enumerate(("BK-1", "BK-2", LONG)):
        settle(
            CREATED, events.created(tour.pk, booking, seats=number + 2, event_id=f"{number}" * 255)
        )
    settle(CREATED, *[events.created(tour.pk, f"BK-1{number}") for number in range(9)])
    with person(browser, str(live_server), width=width) as somebody:
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


class TestTheDashboard:
    def test_a_bar_and_its_figure_lead_to_the_events_behind_them(
        self, browser: Browser, live_server: object, admin: User
    ) -> None:
        tour = TourFactory.create(capacity=3)
        settle(CREATED, events.created(tour.pk, "BK-1"), events.created(tour.pk, "BK-2"))
        with person(browser, str(live_server)) as somebody:
            somebody.log_in("admin", PASSWORD)
            page = somebody.page
            somebody.go("/admin/")
            page.get_by_text("Bookings by hour, as a table").press("Enter")
            page.locator("details[open] td a").press("Enter")
            page.wait_for_url("**/processedevent/?*outcome=reserved*")
            assert page.locator("#result_list tbody tr").count() == 2
            somebody.go("/admin/")
            canvas = page.locator("canvas.chart").first
            x, y = canvas.evaluate(MIDDLE_OF_THE_LAST_BAR)
            canvas.click(position={"x": x, "y": y})
            page.wait_for_url("**/processedevent/?*outcome=reserved*processed_at__lt*")
            assert page.locator("#result_list tbody tr").count() == 2
            assert not somebody.problems

    def test_a_chart_is_drawn_for_the_theme_that_is_chosen(
        self, browser: Browser, live_server: object, admin: User
    ) -> None:
        tour = TourFactory.create(capacity=3)
        settle(CREATED, events.created(tour.pk, "BK-1"))
        with person(browser, str(live_server)) as somebody:
            somebody.log_in("admin", PASSWORD)
            somebody.go("/admin/")
            light = somebody.page.evaluate(COLOUR_OF_THE_LEGEND)
            somebody.page.evaluate("document.documentElement.className = 'dark'")
            somebody.page.wait_for_function(f"({COLOUR_OF_THE_LEGEND})() !== {light!r}")
