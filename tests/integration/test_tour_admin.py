"""Tours and reservations in the admin, as operations staff use them."""

from functools import partial
from threading import Barrier
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.models.signals import pre_delete
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from booking_platform.messaging.models import ProcessedEvent
from catalog.models import Reservation, SeatChange, Tour
from tests import events
from tests.factories import TourFactory
from tests.integration.admin_pages import (
    CANCELLED,
    CREATED,
    before,
    filled_in,
    listed,
    listing,
    messages,
    page,
    settle,
    staff,
    text,
)
from tests.threads import at_once

pytestmark = pytest.mark.django_db


class TestTours:
    def test_the_list_shows_the_numbers_and_sorts_by_each_of_them(
        self, admin_client: Client
    ) -> None:
        small, large = TourFactory.create(capacity=5), TourFactory.create(capacity=50, price=12)
        settle(CREATED, events.created(small.pk, "BK-1", 5), events.created(large.pk, None, 7))
        staff_page = admin_client.get(page(small))
        admin_client.post(page(small), filled_in(staff_page, capacity=2))
        rows = admin_client.get(listing(Tour)).context["cl"].result_list
        numbers = {
            tour.pk: (tour.capacity, tour.available_seats, tour.reserved_seats) for tour in rows
        }
        assert numbers == {small.pk: (2, 0, 5), large.pk: (50, 43, 0)}
        for column in range(8):
            ascending = listed(admin_client, Tour, o=column)
            assert listed(admin_client, Tour, o=f"-{column}") == ascending[::-1]
        assert listed(admin_client, Tour, o="-7") == [small, large]  # overbooked: by 3, by 0

    @pytest.mark.parametrize(
        ("choice", "names"),
        [
            ("free", ["half"]),
            ("sold-out", ["full", "too full"]),
            ("overbooked", ["too full"]),
        ],
    )
    def test_a_filter_by_seats_finds(
        self, admin_client: Client, choice: str, names: list[str]
    ) -> None:
        for name in ("full", "half", "too full"):
            tour = TourFactory.create(name=name, capacity=4)
            settle(CREATED, events.created(tour.pk, name, 2 if name == "half" else 4))
        Tour.objects.filter(name="too full").update(capacity=3)
        assert [tour.name for tour in listed(admin_client, Tour, seats=choice)] == names

    def test_a_search_finds_a_part_of_the_name_or_the_whole_id(self, admin_client: Client) -> None:
        paris, rome = (
            TourFactory.create(id=4, name="Paris City Tour"),
            TourFactory.create(id=42, name="Rome"),
        )
        assert listed(admin_client, Tour, q="city") == [paris]
        assert listed(admin_client, Tour, q="4") == [paris]
        assert listed(admin_client, Tour, q="42") == [rome]

    def test_the_page_explains_the_seats_and_counts_the_reservations(
        self, admin_client: Client
    ) -> None:
        tour = TourFactory.create(capacity=10)
        bookings = [events.created(tour.pk, f"BK-{n}", 3) for n in range(4)]
        settle(CREATED, *bookings)
        settle(CANCELLED, events.cancelled(tour.pk, "BK-0", 3))
        shown = text(admin_client.get(page(tour)))
        assert "10 seats − 6 reserved = 4 available" in shown
        for line in ("2 reserved, 6 seats", "1 rejected, 3 seats", "1 released, 3 seats"):
            assert line in shown
        reserved = listed(admin_client, Reservation, tour=tour.pk, state__exact="reserved")
        assert f"?tour={tour.pk}&state__exact=reserved" in shown
        assert {reservation.booking_id for reservation in reserved} == {"BK-1", "BK-2"}

    def test_the_buttons_come_where_the_form_ends_and_before_the_history(
        self, admin_client: Client
    ) -> None:
        shown = text(admin_client.get(page(TourFactory.create())))
        assert shown.count('name="_save"') == 1
        assert shown.index('name="capacity"') < shown.index('name="_save"')
        assert shown.index('name="_save"') < shown.index('id="seat-history"')

    def test_a_new_tour_has_all_its_seats_free(self, admin_client: Client) -> None:
        response = admin_client.post(
            reverse("admin:catalog_tour_add"),
            {"name": "Loire", "description": "", "price": "9.90", "capacity": 12},
            follow=True,
        )
        tour = Tour.objects.get(name="Loire")
        assert f"tour {tour.pk} (Loire)" in messages(response)
        assert (tour.capacity, tour.available_seats, tour.unledgered_seats) == (12, 12, 0)

    def test_staff_edit_four_fields_and_no_seat_numbers(self, admin_client: Client) -> None:
        tour = TourFactory.create(capacity=10)
        shown = admin_client.get(page(tour))
        assert list(shown.context["adminform"].form.fields) == [
            "name",
            "description",
            "price",
            "capacity",
        ]
        forged = {"available_seats": 99, "reserved_seats": 99, "unledgered_seats": 99}
        admin_client.post(page(tour), filled_in(shown, name="New name", **forged))
        tour.refresh_from_db()
        assert (tour.name, tour.available_seats, tour.reserved_seats) == ("New name", 10, 0)
        assert tour.unledgered_seats == 0

    @pytest.mark.parametrize(("sold", "capacity"), [(8, 5), (8, 8), (8, 0), (3, 100)])
    def test_any_capacity_is_accepted_whatever_is_sold(
        self, admin_client: Client, sold: int, capacity: int
    ) -> None:
        tour = TourFactory.create(capacity=10)
        settle(CREATED, events.created(tour.pk, "BK-1", sold))
        shown = admin_client.get(page(tour))
        response = admin_client.post(page(tour), filled_in(shown, capacity=capacity), follow=True)
        tour.refresh_from_db()
        assert (tour.capacity, tour.available_seats) == (capacity, max(0, capacity - sold))
        assert ("overbooked by" in messages(response)) == (sold > capacity)

    def test_bookings_that_come_while_the_form_is_open_count(self, admin_client: Client) -> None:
        tour = TourFactory.create(capacity=10)
        shown = admin_client.get(page(tour))
        settle(CREATED, events.created(tour.pk, "BK-1", 7), events.created(tour.pk, None, 1))
        admin_client.post(page(tour), filled_in(shown, capacity=6))
        tour.refresh_from_db()
        assert (tour.available_seats, tour.reserved_seats, tour.overbooked_seats) == (0, 7, 2)

    def test_a_booking_that_comes_during_the_request_counts(self, admin_client: Client) -> None:
        tour = TourFactory.create(capacity=10)
        data = filled_in(admin_client.get(page(tour)), capacity=8)

        def book() -> None:  # as a worker's transaction leaves the row
            Tour.objects.filter(pk=tour.pk).update(reserved_seats=3, available_seats=7)

        with before("UPDATE", "tours", book):
            admin_client.post(page(tour), data)
        tour.refresh_from_db()
        assert (tour.capacity, tour.reserved_seats, tour.available_seats) == (8, 3, 5)

    def test_a_form_left_open_undoes_no_colleagues_change(self, admin_client: Client) -> None:
        tour = TourFactory.create(capacity=10, name="Old", description="Two\nlines")
        mine, theirs = admin_client.get(page(tour)), admin_client.get(page(tour))
        admin_client.post(page(tour), filled_in(theirs, capacity=30, name="New"))
        admin_client.post(page(tour), filled_in(mine, price="12.50"))
        tour.refresh_from_db()
        assert (tour.name, tour.capacity, str(tour.price)) == ("New", 30, "12.50")
        assert (tour.description, tour.available_seats) == ("Two\nlines", 30)

    def test_what_both_changed_is_refused_with_both_values_and_nothing_is_stored(
        self, admin_client: Client
    ) -> None:
        tour = TourFactory.create(capacity=10, name="Old")
        mine, theirs = admin_client.get(page(tour)), admin_client.get(page(tour))
        admin_client.post(page(tour), filled_in(theirs, capacity=30))
        response = admin_client.post(page(tour), data := filled_in(mine, capacity=25, name="New"))
        said = (
            "Capacity is 30 by now: somebody has changed it since you opened this page, where it was "
            "10. Nothing of yours is stored, 25 neither."
        )
        assert said in text(response)
        assert said in text(admin_client.post(page(tour), data))  # however often it is sent
        tour.refresh_from_db()
        assert (tour.name, tour.capacity) == ("Old", 30)
        anew = filled_in(admin_client.get(page(tour)), capacity=25)
        assert admin_client.post(page(tour), anew).status_code == 302
        tour.refresh_from_db()
        assert tour.capacity == 25

    def test_texts_are_named_too_however_long_or_strange(self, admin_client: Client) -> None:
        tour = TourFactory.create(name="Old", description="short")
        mine, theirs = admin_client.get(page(tour)), admin_client.get(page(tour))
        admin_client.post(
            page(tour), filled_in(theirs, name="Evil \u202e<b>", description="d" * 900)
        )
        response = admin_client.post(page(tour), filled_in(mine, name="Mine", description="mine"))
        shown = text(response)
        assert "Name is “Evil \\u202e<b>” by now" in shown
        assert "where it was “Old”" in shown
        assert f"Description is “{'d' * 59}…” by now" in shown
        assert b"\\u202e&lt;b&gt;" in response.content

    def test_both_may_want_the_same(self, admin_client: Client) -> None:
        tour = TourFactory.create(capacity=10)
        mine, theirs = admin_client.get(page(tour)), admin_client.get(page(tour))
        admin_client.post(page(tour), filled_in(theirs, capacity=30))
        assert admin_client.post(page(tour), filled_in(mine, capacity="30")).status_code == 302

    @pytest.mark.parametrize("stored", ["a\nb", "a\r\nb", " a\nb \n"])
    def test_what_a_browser_does_to_a_text_is_no_change_of_somebody_else(
        self, admin_client: Client, stored: str
    ) -> None:
        tour = TourFactory.create(description=stored)
        shown = admin_client.get(page(tour))
        sent = {"initial-description": stored.replace("\r\n", "\n").replace("\n", "\r\n")}
        data = filled_in(shown, description="c\r\nd") | sent
        assert admin_client.post(page(tour), data).status_code == 302
        tour.refresh_from_db()
        assert tour.description == "c\r\nd"

    def test_a_form_without_what_it_was_opened_with_is_refused(self, admin_client: Client) -> None:
        tour = TourFactory.create(capacity=10)
        data = filled_in(admin_client.get(page(tour)), capacity=11)
        for sent in ("", "nonsense"):
            response = admin_client.post(page(tour), data | {"initial-capacity": sent})
            assert "Capacity is 10 by now" in text(response)

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.skipif(
        connection.vendor == "sqlite", reason="SQLite has one writer: there is no race to lose"
    )
    def test_of_two_at_once_one_is_refused(self, admin_user: User) -> None:
        tour = TourFactory.create(capacity=10)
        answers: list[int] = []

        def save(capacity: int) -> None:
            client = Client()
            client.force_login(admin_user)
            data = filled_in(client.get(page(tour)), capacity=capacity)
            opened.wait()
            answers.append(client.post(page(tour), data).status_code)

        for capacity in (20, 40, 60):
            opened = Barrier(2)
            at_once(partial(save, capacity), partial(save, capacity + 1))
        assert sorted(answers) == [200, 200, 200, 302, 302, 302]
        assert SeatChange.objects.filter(what__startswith="capacity").count() == 3

    def test_saving_without_a_change_changes_nothing(self, admin_client: Client) -> None:
        tour = TourFactory.create()
        version = tour.optimistic_lock_version
        response = admin_client.post(page(tour), filled_in(admin_client.get(page(tour))))
        assert response.status_code == 302
        tour.refresh_from_db()
        assert tour.optimistic_lock_version == version

    def test_a_refused_form_shows_the_seats_as_they_are(self, admin_client: Client) -> None:
        tour = TourFactory.create(capacity=10)
        data = filled_in(admin_client.get(page(tour)), capacity=2, price="-1")
        response = admin_client.post(page(tour), data)
        assert "greater than or equal to 0" in text(response)
        assert "10 seats − 0 reserved = 10 available" in text(response)
        assert response.context["adminform"].form["capacity"].value() == "2"

    def test_a_tour_that_sold_nothing_can_be_deleted(self, admin_client: Client) -> None:
        tour = TourFactory.create()
        assert page(tour, "delete") in text(admin_client.get(page(tour)))
        admin_client.post(page(tour, "delete"), {"post": "yes"})
        assert not Tour.objects.exists()

    @pytest.mark.parametrize("booking", ["BK-1", None])
    def test_a_tour_that_sold_seats_stays(self, admin_client: Client, booking: str | None) -> None:
        tour = TourFactory.create()
        settle(CREATED, events.created(tour.pk, booking))
        assert page(tour, "delete") not in text(admin_client.get(page(tour)))
        response = admin_client.post(page(tour, "delete"), {"post": "yes"})
        assert response.status_code == 403
        assert Tour.objects.exists()
        assert ProcessedEvent.objects.count() == 1

    @pytest.mark.django_db(transaction=True)
    def test_a_reservation_that_comes_during_the_deletion_wins(self, admin_client: Client) -> None:
        tour = TourFactory.create()
        now = timezone.now()

        def reserve(**_: Any) -> None:
            Reservation.objects.create(
                booking_id="BK",
                tour=tour,
                seats=1,
                state="reserved",
                created_at=now,
                updated_at=now,
            )

        pre_delete.connect(reserve, sender=Tour)
        try:
            response = admin_client.post(page(tour, "delete"), {"post": "yes"}, follow=True)
        finally:
            pre_delete.disconnect(reserve, sender=Tour)
        assert "a reservation arrived meanwhile" in messages(response)
        assert Tour.objects.exists()

    def test_view_only_staff_see_everything_and_change_nothing(self) -> None:
        tour, client = TourFactory.create(), staff("view_tour")
        assert "20 seats − 0 reserved = 20 available" in text(client.get(page(tour)))
        assert client.post(page(tour), {"capacity": 1}).status_code == 403


class TestReservations:
    @pytest.fixture
    def tour(self) -> Tour:
        tour = TourFactory.create(name="Paris City Tour", capacity=5)
        settle(
            CREATED,
            events.created(tour.pk, "BK-42", 5, event_id="creation"),
            events.created(tour.pk, "BK-43", 5),
        )
        settle(CANCELLED, events.cancelled(tour.pk, "BK-42", 5, event_id="cancellation"))
        settle(CREATED, events.created(TourFactory.create().pk, "XX-1"))
        return tour

    @pytest.mark.parametrize(
        ("words", "found"),
        [
            ("BK-42", {"BK-42"}),
            ("BK", {"BK-42", "BK-43"}),
            ("paris city", {"BK-42", "BK-43"}),
            ("creation", {"BK-42"}),
            ("cancellation", {"BK-42"}),
            ("K-42", set()),
        ],
    )
    def test_a_search_finds_bookings_events_and_tours(
        self, admin_client: Client, tour: Tour, words: str, found: set[str]
    ) -> None:
        assert {each.booking_id for each in listed(admin_client, Reservation, q=words)} == found

    def test_filters_by_state_date_and_tour(self, admin_client: Client, tour: Tour) -> None:
        def bookings(**query: Any) -> set[str]:
            return {each.booking_id for each in listed(admin_client, Reservation, **query)}

        assert bookings(state__exact="rejected") == {"BK-43"}
        assert bookings(tour=tour.pk) == {"BK-42", "BK-43"}
        assert bookings(created_at__gte="2020-01-01 00:00:00+00:00") == {"BK-42", "BK-43", "XX-1"}
        assert bookings(tour="nonsense") == bookings(tour="999999") == set()
        assert bookings(tour="") == {"BK-42", "BK-43", "XX-1"}
        assert "Paris City Tour" in text(
            admin_client.get(listing(Reservation), {"tour": str(tour.pk), "q": "no such booking"})
        )

    def test_the_page_links_to_the_tour_and_to_the_events(
        self, admin_client: Client, tour: Tour
    ) -> None:
        shown = text(admin_client.get(page(Reservation.objects.get(booking_id="BK-42"))))
        assert f'href="{page(tour)}"' in shown
        for event in ProcessedEvent.objects.filter(aggregate_id="BK-42"):
            assert f'href="{page(event)}"' in shown
        assert len(listed(admin_client, ProcessedEvent, aggregate_id="BK-42")) == 2
        assert f'href="{listing(ProcessedEvent)}?aggregate_id=BK-42"' in shown

    def test_a_booking_id_from_a_stranger_breaks_no_page(self, admin_client: Client) -> None:
        booking = "\"'><script>alert(1)</script>&a=%00#?"
        settle(CREATED, events.created(TourFactory.create().pk, booking))
        [reservation] = listed(admin_client, Reservation)
        [event] = listed(admin_client, ProcessedEvent, aggregate_id=booking)
        for url in (page(reservation), page(event), listing(Reservation), listing(ProcessedEvent)):
            assert b"<script>alert" not in admin_client.get(url).content
        assert page(event) in text(admin_client.get(page(reservation)))
