"""The admin as operations staff use it: real requests, real events, a real broker."""

import html
import re
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from celery import current_app
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection, transaction
from django.db.models.signals import pre_delete
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from booking_platform.messaging import broker, dead_letters, inbox
from booking_platform.messaging.groups import REPLAY_HEADER, Delivery
from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from booking_platform.messaging.rules import CONSUMERS
from booking_platform.operations import decisions
from catalog.models import Reservation, Tour
from catalog.seats import Outcome
from tests import events
from tests.factories import TourFactory
from tests.servers import free_port

CREATED, CANCELLED = "tour-catalog.booking-created", "tour-catalog.booking-cancelled"
NO_TOUR = 999_999

pytestmark = pytest.mark.django_db


@pytest.fixture
def admin_client(db: None) -> Client:
    """A superuser's; unlike pytest-django's own, without a password that takes long to hash."""
    client = Client()
    client.force_login(User.objects.create_superuser("admin"))
    return client


def settle(queue: str, *given: dict[str, Any] | bytes) -> None:
    inbox.process(CONSUMERS[queue], events.deliveries(*given))


def parked(body: dict[str, Any] | bytes, queue: str = CREATED) -> DeadLetter:
    settle(queue, body)
    return DeadLetter.objects.latest("pk")


def a_parked_event(event_id: str | None = None) -> DeadLetter:
    return parked(events.created(NO_TOUR, "BK-1", event_id=event_id))


def a_foreign_letter() -> DeadLetter:
    """Park a message of a queue that is none of ours."""
    death = {"queue": "another.queue", "reason": "expired"}
    with transaction.atomic():
        dead_letters.park([dead_letters.from_broker(Delivery(b"?", {"x-death": [death]}))])
    return DeadLetter.objects.latest("pk")


def page(record: Any, view: str = "change") -> str:
    meta = record._meta
    return reverse(f"admin:{meta.app_label}_{meta.model_name}_{view}", args=[record.pk])


def listing(model: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def listed(client: Client, model: Any, **query: Any) -> list[Any]:
    """Give the records that a list shows, in its order."""
    response = client.get(listing(model), query)
    assert response.status_code == 200
    return list(response.context["cl"].result_list)


def text(response: Any) -> str:
    assert response.status_code == 200
    return html.unescape(response.content.decode())


def messages(response: Any) -> str:
    return "\n".join(str(message) for message in response.context["messages"])


def filled_in(response: Any, **changes: Any) -> dict[str, Any]:
    """Give what a browser sends for the form it was shown, after the person's changes."""
    data: dict[str, Any] = {}
    for field in response.context["adminform"].form:
        data[field.html_name] = field.value()
        if field.field.show_hidden_initial:
            data[field.html_initial_name] = field.value()
    return data | changes


def staff(*permissions: str) -> Client:
    user = User.objects.create_user("staff", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


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
            ("nonsense", ["full", "half", "too full"]),
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

    def test_a_new_tour_has_all_its_seats_free(self, admin_client: Client) -> None:
        response = admin_client.post(
            reverse("admin:catalog_tour_add"),
            {"name": "Loire", "description": "", "price": "9.90", "capacity": 12},
        )
        assert response.status_code == 302
        tour = Tour.objects.get(name="Loire")
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
            ("42", set()),
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
        assert bookings(tour="nonsense") == {"BK-42", "BK-43", "XX-1"}
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


class TestDeadLetters:
    def test_the_list_shows_the_parked_ones_unless_asked_for_others(
        self, admin_client: Client
    ) -> None:
        open_one, closed = a_parked_event(), a_parked_event()
        dead_letters.discard(closed, by="ada", why="a test")
        assert listed(admin_client, DeadLetter) == [open_one]
        assert listed(admin_client, DeadLetter, state="discarded") == [closed]
        assert listed(admin_client, DeadLetter, state="all") == [closed, open_one]
        shown = text(admin_client.get(listing(DeadLetter)))
        assert "names a tour that does not exist" in shown
        assert f"payload.tourId is {NO_TOUR}: there is no such tour" in shown

    def test_search_and_filters_find(self, admin_client: Client) -> None:
        unknown, foreign = a_parked_event("evt-1"), a_foreign_letter()
        assert listed(admin_client, DeadLetter, q="evt-1") == [unknown]
        assert listed(admin_client, DeadLetter, q="gave it up") == [foreign]
        assert listed(admin_client, DeadLetter, reason__exact="unknown_tour") == [unknown]
        assert listed(admin_client, DeadLetter, queue=CREATED) == [unknown]
        assert listed(admin_client, DeadLetter, queue="other") == [foreign]

    def test_the_list_loads_no_bodies(self, admin_client: Client) -> None:
        letter = a_parked_event()
        with CaptureQueriesContext(connection) as queries:
            listed(admin_client, DeadLetter)
            text(choose(admin_client, "discard", letter))
        assert len(queries) > 5
        assert not [query["sql"] for query in queries if '"body"' in query["sql"]]

    def test_json_is_indented_and_its_numbers_stay_as_they_came(self, admin_client: Client) -> None:
        letter = parked(b'{"a":150.00,"b":[1e400],"c":"\\u202e"}')
        shown = text(admin_client.get(page(letter)))
        assert '{\n  "a": 150.00,\n  "b": [\n    1e400\n  ],\n  "c": "\\u202e"\n}' in shown

    @pytest.mark.parametrize(
        ("body", "shown"),
        [
            (b"<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
            (b"</pre><script>alert(1)", "&lt;/pre&gt;&lt;script&gt;alert(1)"),
            (b'{"eventId": "<script>alert(1)"}', "&lt;script&gt;alert(1)"),
            (b"NUL \0 and ESC \x1b[2J", "NUL \\u0000 and ESC \\u001b[2J"),
            (b"latin-1: \xe9t\xe9", "latin-1: \ufffdt\ufffd"),
            ("\u202etxt.exe".encode(), "\\u202etxt.exe"),
            (b"", "0 bytes"),
            (b"[" * 50_000, "only the first 20,000 characters"),
            (b"[" * 900 + b"1," * 10_000 + b"1" + b"]" * 900, "only the first 20,000 characters"),
            ("🎫".encode() * 20_000, "80,000 bytes</p>"),
            ("🎫".encode() * 20_001, "only the first 20,000 characters"),
        ],
    )
    def test_a_body_from_a_stranger_is_only_text(
        self, admin_client: Client, body: bytes, shown: str
    ) -> None:
        response = admin_client.get(page(parked(body)))
        assert response.status_code == 200
        assert shown in response.content.decode()
        assert b"<script>alert" not in response.content
        assert b"\0" not in response.content

    def test_of_ten_megabytes_only_the_beginning_is_read(self, admin_client: Client) -> None:
        letter = parked(b'{"eventId": "large", "pad": "' + b"<" * 10 * 1024 * 1024 + b'"}')
        admin_client.get(page(letter))  # compiles the templates
        tracemalloc.start()
        response = admin_client.get(page(letter))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert "10,485,791 bytes: only the first 20,000 characters" in text(response)
        assert len(response.content) < 150_000
        assert peak < 5_000_000

    def test_a_stranger_chooses_event_ids_and_details(self, admin_client: Client) -> None:
        evil = "<script>alert(1)</script>" * 9
        letter = parked(events.created(NO_TOUR, event_id=evil[:255], eventType=evil[:99]))
        for url in (listing(DeadLetter), page(letter)):
            assert b"<script>alert" not in admin_client.get(url).content
        for action in ("replay", "discard"):
            assert b"<script>alert" not in choose(admin_client, action, letter).content
        response = confirm(admin_client, "discard", letter, why=evil)
        assert b"<script>alert" not in response.content

    def test_a_conflict_links_to_the_event_that_was_applied(self, admin_client: Client) -> None:
        tour = TourFactory.create()
        settle(CREATED, events.created(tour.pk, "BK-1", 1, event_id="twice"))
        letter = parked(events.created(tour.pk, "BK-1", 2, event_id="twice"))
        assert f'href="{page(ProcessedEvent.objects.get())}"' in text(
            admin_client.get(page(letter))
        )


def choose(client: Client, action: str, *letters: DeadLetter, **data: Any) -> Any:
    """Select dead letters and press the button: what comes is the confirmation."""
    pks = [letter.pk for letter in letters]
    return client.post(
        listing(DeadLetter), {"action": action, "_selected_action": pks} | data, follow=True
    )


def confirm(client: Client, action: str, *letters: DeadLetter, why: str = "", **data: Any) -> Any:
    return choose(client, action, *letters, confirmed="yes", why=why, **data)


def fields(shown: str, form: str) -> dict[str, str]:
    """Give what the browser sends of one form of a page."""
    [found] = re.findall(f"<form {form}.*?</form>", shown, re.DOTALL)
    return dict(re.findall(r'name="(\w+)" value="([^"]*)"', found))


class before:  # noqa: N801  (reads as a statement)
    """Does something once, just before the first statement of a kind is executed."""

    def __init__(self, verb: str, table: str, act: Callable[[], None]) -> None:
        self._start, self._act = f'{verb} "{table}"', act
        self._wrapper = connection.execute_wrapper(self._execute)

    def __enter__(self) -> None:
        self._wrapper.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._wrapper.__exit__(*error)
        assert self._act is None, f"no {self._start}"

    def _execute(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if self._act is not None and sql.startswith(self._start):
            act, self._act = self._act, None  # type: ignore[assignment]
            act()
        return execute(sql, params, many, context)


class TestReplayAndDiscard:
    @pytest.fixture
    def sent(self) -> Any:
        """Give what is in the queue of created bookings: bodies by the letter they replay."""
        with current_app.connection_for_write() as connection:
            broker.declare(connection)
            channel: Any = connection.channel()
            channel.queue_purge(CREATED)

            def read() -> dict[int, bytes]:
                replayed = {}
                while message := channel.basic_get(CREATED, no_ack=True):
                    body = message.body
                    replayed[message.headers[REPLAY_HEADER]] = (
                        body.encode() if isinstance(body, str) else bytes(body)
                    )
                return replayed

            yield read

    def test_a_replay_sends_the_original_bytes_and_closes(
        self, admin_client: Client, sent: Any
    ) -> None:
        letter = a_parked_event("evt-1")
        assert "REPLAY" in text(choose(admin_client, "replay", letter)).upper()
        assert sent() == {}
        response = confirm(admin_client, "replay", letter, why="the tour exists now")
        assert "1 dead letter replayed: evt-1" in messages(response)
        assert sent() == {letter.pk: bytes(letter.body)}
        letter.refresh_from_db()
        assert letter.state == DeadLetter.State.REPLAYED
        assert (letter.resolved_by, letter.resolution) == ("admin", "the tour exists now")
        entry = LogEntry.objects.get()
        assert entry.get_change_message() == "replayed: the tour exists now"
        assert entry.get_edited_object() == letter
        assert "replayed: the tour exists now" in text(admin_client.get(page(letter, "history")))

    def test_a_replay_needs_no_reason_but_a_discard_does(
        self, admin_client: Client, sent: Any
    ) -> None:
        letter, other = a_parked_event(), a_parked_event()
        confirm(admin_client, "replay", letter)
        refused = confirm(admin_client, "discard", other, why="   ")
        assert "This field is required." in text(refused)
        assert not DeadLetter.objects.filter(state="discarded").exists()
        response = confirm(admin_client, "discard", other, why="a test of the partner")
        assert "1 dead letter discarded" in messages(response)
        assert sent().keys() == {letter.pk}
        other.refresh_from_db()
        assert (other.state, other.resolution) == ("discarded", "a test of the partner")
        assert LogEntry.objects.count() == 2

    def test_each_of_many_is_told_of(self, admin_client: Client, sent: Any) -> None:
        good, also_good, closed = (a_parked_event(f"evt-{n}") for n in range(3))
        foreign = a_foreign_letter()
        dead_letters.discard(closed, by="ada", why="a test")
        response = confirm(admin_client, "replay", good, foreign, closed, also_good)
        told = messages(response)
        assert "2 dead letters replayed: evt-0" in told
        assert "evt-2 from tour-catalog.booking-created is discarded" in told
        assert "no consumer has a queue of that name" in told
        assert sent().keys() == {good.pk, also_good.pk}
        assert LogEntry.objects.count() == 2

    def test_all_pages_of_a_list_can_be_chosen_at_once(
        self, admin_client: Client, sent: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(decisions, "MOST_AT_ONCE", 3)
        monkeypatch.setattr(decisions, "LISTED", 2)
        letters = [a_parked_event(f"evt-{n}") for n in range(5)]
        shown = text(choose(admin_client, "replay", letters[-1], select_across="1", index="0"))
        assert "5 are selected. These are the 3 oldest; do it again for the other 2." in shown
        assert "… and 1 more." in shown
        for letter in letters[:3]:
            assert f'name="_selected_action" value="{letter.pk}"' in shown
        confirm(admin_client, "replay", *letters[:3])
        assert sent().keys() == {letter.pk for letter in letters[:3]}

    def test_one_that_comes_again_meanwhile_stays_open(
        self, admin_client: Client, sent: Any
    ) -> None:
        event = events.created(NO_TOUR, "BK-1")
        letter = parked(event)
        for action, log_entries in (("discard", 0), ("replay", 1)):
            with before("UPDATE", "dead_letters", lambda: settle(CREATED, event)):
                response = confirm(admin_client, action, letter, why="decided")
            assert "it came again meanwhile" in messages(response)
            letter.refresh_from_db()
            assert letter.state == DeadLetter.State.PARKED
            assert LogEntry.objects.count() == log_entries
        assert sent().keys() == {letter.pk}
        assert letter.attempts == 3

    def test_a_broker_that_is_away_is_told_and_leaves_them_parked(
        self, admin_client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        letters = [a_parked_event(), a_parked_event()]
        away = f"amqp://guest:guest@127.0.0.1:{free_port()}//"
        monkeypatch.setenv("CELERY_BROKER_WRITE_URL", away)
        monkeypatch.setitem(current_app.conf, "broker_transport", None)  # as the URL says
        response = confirm(admin_client, "replay", *letters, why="try")
        assert "The broker did not take the message (ConnectionRefusedError" in messages(response)
        assert "2 of those selected stay as they were" in messages(response)
        assert DeadLetter.objects.filter(state="parked").count() == 2
        assert not LogEntry.objects.exists()

    def test_an_open_letter_has_buttons_and_a_closed_one_has_none(
        self, admin_client: Client
    ) -> None:
        letter = a_parked_event()
        came = admin_client.get(page(letter) + "?_changelist_filters=queue%3Dother")
        assert '<form class="resolutions" method="post"' in text(came)
        target = f"{listing(DeadLetter)}?queue=other"  # the list that the person came from
        assert f'action="{target}"' in text(came)
        pressed = admin_client.post(target, {"action": "discard", "_selected_action": letter.pk})
        assert "Discard 1 dead letter" in text(pressed)
        data = {"action": "discard", "_selected_action": letter.pk, "confirmed": 1, "why": "done"}
        admin_client.post(target, data)
        shown = text(admin_client.get(page(letter)))
        assert 'class="resolutions"' not in shown
        assert "discarded: a person decided that it is not needed" in shown

    def test_view_only_staff_neither_see_nor_run_them(self, sent: Any) -> None:
        letter, client = a_parked_event(), staff("view_deadletter")
        for url in (listing(DeadLetter), page(letter)):
            shown = text(client.get(url))
            assert 'name="action"' not in shown
        for action in ("replay", "discard"):
            confirm(client, action, letter, why="forged")
        letter.refresh_from_db()
        assert letter.state == DeadLetter.State.PARKED
        assert sent() == {}

    @pytest.mark.parametrize(
        ("permission", "may", "may_not"),
        [
            ("replay_deadletter", "replay", "discard"),
            ("discard_deadletter", "discard", "replay"),
        ],
    )
    def test_each_has_a_permission_of_its_own(
        self, sent: Any, permission: str, may: str, may_not: str
    ) -> None:
        letter, client = a_parked_event(), staff("view_deadletter", permission)
        assert f'name="action" value="{may}"' in text(client.get(page(letter)))
        assert f'name="action" value="{may_not}"' not in text(client.get(page(letter)))
        confirm(client, may_not, letter, why="forged")
        assert DeadLetter.objects.get().state == DeadLetter.State.PARKED
        confirm(client, may, letter, why="decided")
        assert DeadLetter.objects.get().state != DeadLetter.State.PARKED

    def test_get_requests_change_nothing(self, admin_client: Client) -> None:
        letter = a_parked_event()
        query: dict[str, Any] = {
            "action": "discard",
            "_selected_action": letter.pk,
            "confirmed": "1",
            "why": "x",
        }
        admin_client.get(listing(DeadLetter), query)
        assert DeadLetter.objects.get().state == DeadLetter.State.PARKED

    def test_the_forms_work_in_a_browser_and_not_from_a_strangers_page(self) -> None:
        letter, client = a_parked_event(), Client(enforce_csrf_checks=True)
        client.force_login(User.objects.create_superuser("admin"))
        assert confirm(client, "discard", letter, why="forged").status_code == 403
        assert DeadLetter.objects.get().state == DeadLetter.State.PARKED
        buttons = fields(text(client.get(page(letter))), 'class="resolutions"')
        asked = client.post(listing(DeadLetter), buttons | {"action": "discard"})
        answers = fields(text(asked), 'method="post">')
        client.post(listing(DeadLetter), answers | {"why": "a person decided"})
        assert DeadLetter.objects.get().resolution == "a person decided"
