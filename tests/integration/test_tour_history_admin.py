"""The history of a tour's seats on its page in the admin."""

import re
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from booking_platform.messaging.models import ProcessedEvent
from catalog.models import Reservation, SeatChange, Tour
from tests import events
from tests.factories import TourFactory
from tests.integration.admin_pages import CANCELLED, CREATED, filled_in, listing, page, settle, text
from tests.integration.test_seat_history import old_changes

pytestmark = pytest.mark.django_db


class TestTheHistory:
    @pytest.fixture
    def tour(self) -> Tour:
        tour: Tour = TourFactory.create(capacity=10, available_seats=8)
        settle(CREATED, events.created(tour.pk, "BK-1", 5, event_id="one"))
        settle(CREATED, events.created(tour.pk, "BK-2", 4, event_id="two"))
        settle(CANCELLED, events.cancelled(tour.pk, "BK-1", 2, seatsRemaining=3, event_id="three"))
        return tour

    def test_the_page_tells_what_happened_with_links(
        self, admin_client: Client, tour: Tour
    ) -> None:
        admin_client.post(page(tour), filled_in(admin_client.get(page(tour)), capacity=4))
        shown = text(admin_client.get(page(tour)))
        reservation = Reservation.objects.get(booking_id="BK-1")
        event = ProcessedEvent.objects.get(event_id="three")
        assert f'<a href="{page(reservation)}">BK-1</a>: reduced, 2 given back' in shown
        assert f'(event <a href="{page(event)}">three</a>)' in shown
        assert "BK-2</a>: rejected, asked for 4" in shown
        assert "capacity 10 → 4, by admin" in shown
        assert "created with 10 seats, 2 of them sold" in shown
        assert shown.index("capacity 10 → 4") < shown.index("reduced") < shown.index("created with")
        assert "0 of 4<div>overbooked by 1</div>" in shown

    def test_the_bar_and_the_plot_say_in_words_what_they_show(
        self, admin_client: Client, tour: Tour
    ) -> None:
        said = "10 seats: 3 reserved, 2 sold outside the ledger, 5 free"
        assert f'aria-label="{said}"' in text(admin_client.get(page(tour)))
        assert f'aria-label="{said}"' in text(admin_client.get(listing(Tour)))
        shown = text(admin_client.get(page(tour)))
        assert f"At the end: {said}." in shown
        [table] = re.findall(r"The plot as a table.*?</table>", shown, re.DOTALL)
        cells = re.findall(r'<td class="number">(-?\d+)</td>', table)
        rows = [tuple(map(int, cells[at : at + 4])) for at in range(0, len(cells), 4)]
        assert rows == [(10, 0, 2, 8), (10, 5, 2, 3), (10, 5, 2, 3), (10, 3, 2, 5)]

    def test_older_changes_and_all_of_one_are_behind_links(self, admin_client: Client) -> None:
        tour = TourFactory.create(capacity=500)
        settle(CREATED, *[events.created(tour.pk, f"G-{n}") for n in range(60)])
        for number in range(25):
            settle(CREATED, events.created(tour.pk, f"S-{number}"))
        shown = text(admin_client.get(page(tour)))
        assert "S-24" in shown
        assert "S-4<" not in shown
        assert "?seats_before=7#seat-history" in shown
        older = text(admin_client.get(page(tour), {"seats_before": "7"}))
        assert "S-4<" in older
        assert "S-5<" not in older
        assert "G-4<" in older
        assert "G-5<" not in older
        assert '<a href="?seat_change=1#seat-history">and 55 more</a>' in older
        whole = text(admin_client.get(page(tour), {"seat_change": "1"}))
        assert all(f"G-{n}<" in whole for n in range(60))
        for nonsense in ("x", "-1", "9" * 30, "²", ""):
            assert "S-24" in text(admin_client.get(page(tour), {"seats_before": nonsense}))

    def test_what_is_forgotten_has_no_link(self, admin_client: Client, tour: Tour) -> None:
        ProcessedEvent.objects.all().delete()
        shown = text(admin_client.get(page(tour)))
        assert "reduced, 2 given back (event three)" in shown

    def test_foreign_text_breaks_no_page(self, admin_client: Client) -> None:
        tour = TourFactory.create()
        booking, event = "</table><script>alert(1)</script>", "<!--" + "e" * 251
        settle(CREATED, events.created(tour.pk, booking, event_id=event))
        content = admin_client.get(page(tour)).content
        assert b"<script>alert" not in content
        assert b"(event <a" in content
        assert b"<!--e" not in content

    def test_without_a_history_the_page_says_so(self, admin_client: Client, tour: Tour) -> None:
        SeatChange.objects.all().delete()
        assert "Nothing is known of it yet" in text(admin_client.get(page(tour)))

    def test_a_change_past_the_platform_is_pointed_out(
        self, admin_client: Client, tour: Tour
    ) -> None:
        words = "somebody has changed it past the platform"
        assert words not in text(admin_client.get(page(tour)))
        Tour.objects.filter(pk=tour.pk).update(capacity=12, available_seats=7)
        assert words in text(admin_client.get(page(tour)))

    def test_a_hot_tour_has_few_rows_and_its_page_costs_no_more_statements(
        self, admin_client: Client
    ) -> None:
        def cost(tour: Tour) -> int:
            with CaptureQueriesContext(connection) as queries:
                admin_client.get(page(tour))
            return len(queries)

        quiet = TourFactory.create()
        settle(CREATED, events.created(quiet.pk, "Q"))
        few = cost(quiet)
        hot = TourFactory.create(capacity=5000)
        for start in range(0, 2000, 200):
            settle(CREATED, *[events.created(hot.pk, f"H-{start + n}") for n in range(200)])
        assert hot.seat_changes.count() == 11
        assert cost(hot) == few
        old_changes(hot, 2000, days=1, every=timedelta(seconds=30), first=12)
        assert cost(hot) <= few + 4  # first, last, the ones at evenly spaced times, and these
