"""Ids that look like others: refused at the door, and told apart on every page."""

from typing import Any

import pytest
from django.test import Client

from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from booking_platform.operations.records import exact, typed, visible
from catalog.models import Reservation
from notifications.models import CancellationEmail
from payments.models import Refund
from tests import events
from tests.factories import EmailFactory, RefundFactory, TourFactory
from tests.integration.admin_pages import CREATED, listed, listing, page, parked, settle, text

pytestmark = pytest.mark.django_db

HIDDEN, SHOWN = "BK\u200b-1\u00a0x", r"BK\u200b-1\u00a0x"


class TestAtTheDoor:
    def test_a_refused_id_is_a_dead_letter_that_shows_it(self, admin_client: Client) -> None:
        tour = TourFactory.create()
        event = events.created(tour.pk, "BK\u200b-1", event_id="e-1")
        letter = parked(event)
        assert letter.reason == "invalid"
        assert r'payload.bookingId is "BK\u200b-1"' in text(admin_client.get(page(letter)))
        assert not Reservation.objects.exists()

    def test_an_event_id_is_shown_too(self, admin_client: Client) -> None:
        letter = parked(events.created(TourFactory.create().pk, "BK-1", event_id="e\u200b1"))
        for place in (page(letter), listing(DeadLetter)):
            shown = text(admin_client.get(place))
            assert r"e\u200b1" in shown
            assert "\u200b" not in shown


@pytest.fixture
def records() -> list[Any]:
    """Records from before such ids were refused."""
    tour = TourFactory.create()
    settle(CREATED, events.created(tour.pk, "BK-1"))
    Reservation.objects.update(booking_id=HIDDEN, created_event_id=HIDDEN)
    ProcessedEvent.objects.update(aggregate_id=HIDDEN, event_id=HIDDEN)
    refund, email = RefundFactory.create(booking_id=HIDDEN), EmailFactory.create(booking_id=HIDDEN)
    return [Reservation.objects.get(), ProcessedEvent.objects.get(), refund, email]


class TestInTheAdmin:
    @pytest.mark.parametrize("model", [Reservation, ProcessedEvent, Refund, CancellationEmail])
    def test_lists_and_pages_show_what_can_not_be_seen(
        self, admin_client: Client, records: list[Any], model: Any
    ) -> None:
        [record] = [each for each in records if isinstance(each, model)]
        for place in (page(record), listing(model)):
            shown = text(admin_client.get(place))
            assert SHOWN in shown
            assert "\u200b" not in shown

    @pytest.mark.parametrize("model", [Reservation, ProcessedEvent, Refund, CancellationEmail])
    @pytest.mark.parametrize("term", [HIDDEN, SHOWN])
    def test_a_search_finds_them_as_they_are_and_as_they_are_shown(
        self, admin_client: Client, records: list[Any], model: Any, term: str
    ) -> None:
        assert len(listed(admin_client, model, q=term)) == 1

    def test_a_search_says_what_it_was_asked_for(self, admin_client: Client) -> None:
        shown = text(admin_client.get(listing(Reservation), {"q": "BK\u200b-1"}))
        assert r"Your search holds characters that can't be seen: BK\u200b-1" in shown
        assert "can't be seen" not in text(admin_client.get(listing(Reservation), {"q": "BK-1"}))


class TestShownText:
    @pytest.mark.parametrize(
        ("given", "shown"),
        [
            ("BK-1 é 😀 用户", "BK-1 é 😀 用户"),
            ("a\u00a0b", r"a\u00a0b"),
            (" a  b ", r"\u0020a  b\u0020"),
            ("a\ufe0fb\u3164", r"a\ufe0fb\u3164"),
            ("\U000e0041", r"\U000e0041"),
            ("\u200d\n", r"\u200d\u000a"),
        ],
    )
    def test_an_id_is_exact(self, given: str, shown: str) -> None:
        assert exact(given) == shown
        assert typed(shown) == given

    @pytest.mark.parametrize(
        ("given", "shown"),
        [
            ("1\u202f500\u00a0€, 👩\u200d👧\n", "1\u202f500\u00a0€, 👩\u200d👧\n"),
            ("a\u200bb\ufeff\u2028\u202e", r"a\u200bb\ufeff\u2028\u202e"),
        ],
    )
    def test_other_text_keeps_what_writing_needs(self, given: str, shown: str) -> None:
        assert visible(given) == shown

    @pytest.mark.parametrize("term", [r"\u0000", r"\ud800", r"\u0041", r"\Uffffffff", r"\u12"])
    def test_no_other_escape_is_read(self, term: str) -> None:
        assert typed(term) == term
