"""Records of fact in the admin: for all of them, and processed events."""

from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from catalog.bookings import Outcome
from catalog.models import Reservation, Tour
from tests import events
from tests.factories import TourFactory
from tests.integration.admin_pages import (
    CANCELLED,
    CREATED,
    NO_TOUR,
    a_parked_event,
    listed,
    listing,
    page,
    settle,
    staff,
    text,
)

pytestmark = pytest.mark.django_db


class TestRecordsOfFact:
    @pytest.fixture(params=[Reservation, ProcessedEvent, DeadLetter])
    def record(self, request: pytest.FixtureRequest) -> Any:
        settle(CREATED, events.created(TourFactory.create().pk, "BK-1"))
        a_parked_event()
        return request.param.objects.get()

    def test_even_a_superuser_can_only_look(self, admin_client: Client, record: Any) -> None:
        assert "Close" in text(admin_client.get(page(record)))
        before_it = type(record).objects.values().get()
        add = reverse(f"admin:{record._meta.app_label}_{record._meta.model_name}_add")
        assert admin_client.get(add).status_code == 403
        assert admin_client.post(page(record), {}).status_code == 403
        assert admin_client.post(page(record, "delete"), {"post": "yes"}).status_code == 403
        data = {"action": "delete_selected", "_selected_action": [record.pk], "post": "yes"}
        admin_client.post(listing(record), data)
        assert type(record).objects.values().get() == before_it

    @pytest.mark.parametrize("model", [Tour, Reservation, ProcessedEvent, DeadLetter])
    def test_a_longer_list_takes_no_more_queries(self, admin_client: Client, model: Any) -> None:
        def grow(booking: str) -> int:
            for n in range(5):
                settle(CREATED, events.created(TourFactory.create().pk, f"{booking}-{n}"))
                settle(CREATED, events.created(NO_TOUR, f"{booking}-{n}"))
            with CaptureQueriesContext(connection) as queries:
                text(admin_client.get(listing(model)))
            return len(queries)

        assert grow("first") == grow("second") <= 8

    @pytest.mark.parametrize("model", [Reservation, ProcessedEvent, DeadLetter])
    def test_nobody_without_permission_sees_any(self, model: Any) -> None:
        assert staff("view_tour").get(listing(model)).status_code == 403


class TestProcessedEvents:
    @pytest.fixture(autouse=True)
    def _events(self) -> None:
        tour = TourFactory.create(capacity=2)
        settle(
            CREATED,
            events.created(tour.pk, "BK-1", 2, event_id="taken"),
            events.created(tour.pk, "BK-2", 2, event_id="refused"),
            events.created(TourFactory.create().pk, event_id="without-booking"),
        )
        settle(CANCELLED, events.cancelled(tour.pk, "BK-1", 2, event_id="cancelled"))

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ({"q": "BK-1"}, {"taken", "cancelled"}),
            ({"q": "refused"}, {"refused"}),
            ({"q": "refuse"}, set()),
            ({"consumer": CANCELLED}, {"cancelled"}),
            ({"event_type": "BookingCreated"}, {"taken", "refused", "without-booking"}),
            ({"outcome": "rejected"}, {"refused"}),
            ({"processed_at__lt": "2020-01-01 00:00:00+00:00"}, set()),
            ({"consumer": CREATED, "outcome": "released"}, set()),
        ],
    )
    def test_search_and_filters_find(
        self, admin_client: Client, query: dict[str, str], found: set[str]
    ) -> None:
        assert {each.event_id for each in listed(admin_client, ProcessedEvent, **query)} == found

    def test_every_outcome_of_the_catalog_can_be_chosen(self, admin_client: Client) -> None:
        shown = text(admin_client.get(listing(ProcessedEvent)))
        for outcome, meaning in Outcome.choices:
            assert f"?outcome={outcome}" in shown
            assert meaning in shown

    def test_the_page_says_what_it_did_and_links_to_its_reservation(
        self, admin_client: Client
    ) -> None:
        shown = text(admin_client.get(page(ProcessedEvent.objects.get(event_id="refused"))))
        assert "rejected: found too few seats and took none" in shown
        assert f'href="{page(Reservation.objects.get(booking_id="BK-2"))}"' in shown

    def test_an_event_without_booking_says_so(self, admin_client: Client) -> None:
        event = ProcessedEvent.objects.get(event_id="without-booking")
        assert "names no booking" in text(admin_client.get(page(event)))
