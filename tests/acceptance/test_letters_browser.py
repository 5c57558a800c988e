"""Dead letters in Chromium: a misspelt currency is mended, a group is replayed, and it can be watched."""

from collections.abc import Iterator

import pytest
from celery import current_app
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import Browser, expect

from booking_platform.messaging import broker, leases
from booking_platform.messaging.models import DeadLetter
from booking_platform.operations import bulk
from booking_platform.operations.models import BulkJob
from tests import events
from tests.browser import NARROW, WIDE, Person, chromium, person
from tests.integration.admin_pages import REFUNDS, a_parked_event, page, parked

PASSWORD = "correct horse battery"

# What a browser shows is the same on each database.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.once]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser, pytest.MonkeyPatch.context() as patched:
        patched.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")  # Playwright's loop runs in this thread
        yield browser


@pytest.fixture(params=[WIDE, NARROW])
def somebody(
    request: pytest.FixtureRequest, browser: Browser, live_server: object
) -> Iterator[Person]:
    User.objects.create_superuser("admin", password=PASSWORD)
    with current_app.connection_for_write() as opened:
        broker.declare(opened)
    with person(browser, str(live_server), width=request.param) as somebody:
        somebody.log_in("admin", PASSWORD)
        yield somebody
        assert not somebody.problems, "\n".join(somebody.problems)


def a_misspelt_currency(booking: str = "BK-1") -> DeadLetter:
    event = events.cancelled(
        1, booking, paymentId="pi_1", amount=80.5, currency="euro", userEmail="ann@example.com"
    )
    return parked(event, REFUNDS)


def test_a_misspelt_currency_is_mended(somebody: Person) -> None:
    letter = a_misspelt_currency()
    a_parked_event()
    parked(b'{"eventId": "' + b"e" * 200 + b'", "payload":')
    somebody.go(reverse("admin:messaging_deadletter_groups"))
    somebody.look("letters-groups")
    its = somebody.page
    its.get_by_role("link", name="a field is missing, of the wrong type or out of bounds").click()
    somebody.go(page(letter))
    its.get_by_role("button", name="Edit and replay").click()
    text = its.locator("textarea.event")
    typed = text.input_value()
    text.fill(typed.replace('"euro"', '"eurs"'))
    its.locator("textarea[name=why]").fill("the partner misspelt it")
    its.get_by_role("button", name="Check it").click()
    expect(its.get_by_role("alert")).to_contain_text('payload.currency is "eurs"')
    assert '"eurs"' in text.input_value()
    somebody.look("letter-edit-refused")
    text.fill(typed.replace('"euro"', '"eur"'))
    its.get_by_role("button", name="Check it").click()
    expect(its.locator("table.changes")).to_contain_text("payload.currency")
    somebody.look("letter-edit-confirm")
    its.get_by_role("button", name="Edit again").click()
    assert '"eur"' in text.input_value()
    its.get_by_role("button", name="Check it").click()
    its.get_by_role("button", name="Send it").click()
    its.wait_for_url(f"**{page(letter)}")
    somebody.look("letter-edited")
    letter.refresh_from_db()
    assert letter.state == "edited"


def test_a_second_effect_is_warned_of(somebody: Person) -> None:
    letter = a_misspelt_currency("BK-" + "x" * 240)
    DeadLetter.objects.update(replay_token="begun")
    somebody.go(reverse("admin:messaging_deadletter_edit", args=[letter.pk]))
    text = somebody.page.locator("textarea.event")
    text.fill(text.input_value().replace('"euro"', '"eur"'))
    somebody.page.locator("textarea[name=why]").fill("x")
    somebody.page.get_by_role("button", name="Check it").click()
    expect(somebody.page.get_by_role("alert")).to_contain_text("It may be in the queue")
    somebody.look("letter-edit-doubt")


def test_a_group_is_discarded_and_watched(somebody: Person) -> None:
    for _ in range(30):
        a_parked_event()
    DeadLetter.objects.create(
        queue="elsewhere", event_id="e" * 255, fingerprint="f", body=b"", reason="unknown_tour"
    )
    somebody.go(reverse("admin:messaging_deadletter_groups"))
    its = somebody.page
    its.get_by_role("button", name="Replay all 1:").click()
    somebody.look("letters-job-confirm")
    its.locator("textarea[name=why]").fill("the tour is there now")
    its.get_by_role("button", name="Replay", exact=True).click()
    expect(its.locator("#progress")).to_contain_text("waits for a worker")
    somebody.look("letters-job-waiting")
    leases.take_up(BulkJob.objects.all(), bulk.attempt)
    expect(its.locator("#progress")).to_contain_text("1 stays open", timeout=15_000)  # by itself
    expect(its.locator("form.resolutions")).to_have_count(0)
    somebody.look("letters-job-done")
    somebody.go(reverse("admin:operations_bulkjob_changelist"))
    somebody.look("letters-jobs")
