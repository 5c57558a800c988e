"""The page of a booking's story: the search on every page, what it shows to whom, and the ways back."""

import re
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from booking_platform.messaging.models import ProcessedEvent
from booking_platform.operations.records import story_address
from catalog.models import Reservation, Tour
from payments.models import Refund
from tests import events
from tests.factories import EmailFactory, RefundFactory, TourFactory
from tests.integration import email_rows, refund_rows
from tests.integration.admin_pages import (
    CREATED,
    a_parked_event,
    listing,
    page,
    parked,
    settle,
    staff,
    text,
)

pytestmark = pytest.mark.django_db(transaction=True)

ADDRESS = "ann@example.com"
HOSTILE = "<script>alert('x')</script>&\"" + "ж" * 220


def search(client: Client, term: str) -> Any:
    return client.post(reverse("story"), {"q": term})


def shown(client: Client, booking: str) -> str:
    return text(client.get(story_address(booking)))


@pytest.fixture
def tour(transactional_db: None) -> Tour:
    return TourFactory.create(capacity=20, name="Giverny")


class TestTheSearch:
    def test_it_leads_to_the_booking(self, admin_client: Client) -> None:
        RefundFactory.create(booking_id="BK-1", payment_id="pi_1")
        answer = search(admin_client, " pi_1 ")
        assert (answer.status_code, answer["Location"]) == (303, story_address("BK-1"))

    def test_an_id_is_found_by_a_link_too(self, admin_client: Client) -> None:
        RefundFactory.create(booking_id="BK-1", payment_id="pi_1")
        answer = admin_client.get(reverse("story"), {"q": "pi_1"})
        assert answer["Location"] == story_address("BK-1")

    def test_an_address_is_in_no_address_of_a_page(self, admin_client: Client) -> None:
        EmailFactory.create(booking_id="BK-1", recipient=ADDRESS)
        answer = search(admin_client, ADDRESS.upper())
        assert answer["Location"] == story_address("BK-1")
        by_link = text(admin_client.get(reverse("story"), {"q": ADDRESS}))
        assert "Nothing that you may see is known of" in by_link

    def test_several_meanings_are_a_choice(self, admin_client: Client) -> None:
        for booking in ("BK-1", "BK-2"):
            EmailFactory.create(booking_id=booking, recipient=ADDRESS)
        found = text(search(admin_client, ADDRESS))
        for booking in ("BK-1", "BK-2"):
            assert f'<a href="{story_address(booking)}">Booking {booking}</a>' in found

    def test_an_event_without_a_booking_leads_to_its_record(self, admin_client: Client) -> None:
        letter = parked(b'{"eventId": "e1", "eventType": "BookingCreated"}')
        assert search(admin_client, "e1")["Location"] == page(letter)

    def test_what_is_not_known_is_said_with_what_was_searched(self, admin_client: Client) -> None:
        found = text(search(admin_client, "BK-404"))
        assert "Nothing that you may see is known of “BK-404”" in found
        assert "a booking id, an event id, a payment id" in found
        assert "remembered for 30 days" in found
        assert "“BK-405”" in shown(admin_client, "BK-405")

    @pytest.mark.parametrize("term", ["", " ", "\0", "\ud800", "x" * 5000, HOSTILE, "%", "\u202e"])
    def test_any_term_is_answered(self, admin_client: Client, term: str) -> None:
        sent = term.encode(errors="replace").decode()
        found = search(admin_client, sent).content.decode()
        assert "<script>alert" not in found
        assert "\u202e" not in found

    def test_an_id_is_found_as_a_page_shows_it(self, admin_client: Client) -> None:
        RefundFactory.create(booking_id="BK\u200b-1 ")
        assert search(admin_client, r"BK\u200b-1\u0020")["Location"] == story_address("BK\u200b-1 ")

    def test_it_is_on_every_page(self, admin_client: Client) -> None:
        refund = RefundFactory.create()
        form = rf'<form method="post" action="{reverse("story")}"'
        for place in (reverse("admin:index"), listing(Refund), page(refund), listing(User)):
            assert form in text(admin_client.get(place))

    def test_it_is_protected_against_other_sites(self) -> None:
        client = Client(enforce_csrf_checks=True)
        client.force_login(User.objects.create_superuser("admin"))
        assert search(client, "BK-1").status_code == 403

    def test_nobody_else_is_answered(self, client: Client) -> None:
        assert search(client, "BK-1").status_code == 302
        assert "/admin/login/" in client.get(story_address("BK-1"))["Location"]


class TestTheStory:
    def test_it_shows_how_the_booking_stands_and_what_happened(
        self, admin_client: Client, tour: Tour
    ) -> None:
        settle(CREATED, events.created(tour.pk, "BK-1", 3, event_id="e1"))
        refund = refund_rows.refused(booking_id="BK-1")
        told = shown(admin_client, "BK-1")
        for words in (
            f"Holds 3 seats of tour {tour.pk} (Giverny).",
            "NOT refunded: Stripe refused, and lists no refund: Insufficient funds.",
            "waits for a person",
            f"3 seats of tour {tour.pk} were taken; it had 17 free after that.",
            "BookingCreated (event e1) came.",
        ):
            assert words in told
        for record in (refund, Reservation.objects.get(), ProcessedEvent.objects.get(), tour):
            assert f'href="{page(record)}"' in told

    def test_what_waits_for_a_person_stands_first(self, admin_client: Client) -> None:
        email_rows.sent(booking_id="BK-1")
        refund_rows.refused(booking_id="BK-1")
        told = shown(admin_client, "BK-1")
        assert told.index("NOT refunded") < told.index("a mail server took the e-mail")

    def test_each_record_leads_back(self, admin_client: Client, tour: Tour) -> None:
        settle(CREATED, events.created(tour.pk, "BK-1"))
        records = [
            Reservation.objects.get(),
            ProcessedEvent.objects.get(),
            RefundFactory.create(booking_id="BK-1"),
            EmailFactory.create(booking_id="BK-1"),
            a_parked_event(),
        ]
        for record in records:
            assert f'href="{story_address("BK-1")}"' in text(admin_client.get(page(record)))

    def test_hostile_ids_are_text(self, admin_client: Client) -> None:
        RefundFactory.create(booking_id=HOSTILE, payment_id="\u202epi")
        told = shown(admin_client, HOSTILE)
        assert "<script>alert" not in admin_client.get(story_address(HOSTILE)).content.decode()
        assert r"\u202epi" in told
        assert "\u202e" not in told

    @pytest.mark.parametrize("query", [{"booking": "\0"}, {"booking": "x" * 5000}])
    def test_an_address_that_no_page_has_made_is_refused(
        self, admin_client: Client, query: dict[str, str]
    ) -> None:
        assert admin_client.get(f"{reverse('story')}?{urlencode(query)}").status_code == 400

    def test_no_address_of_a_customer_is_shown(self, admin_client: Client) -> None:
        email_rows.failed(booking_id="BK-1", recipient=ADDRESS)
        assert ADDRESS not in shown(admin_client, "BK-1")


class TestRights:
    def test_a_person_sees_the_parts_that_they_may_see(self, tour: Tour) -> None:
        settle(CREATED, events.created(tour.pk, "BK-1"))
        refund = refund_rows.refused(booking_id="BK-1")
        client = staff("view_reservation")
        told = shown(client, "BK-1")
        assert "Holds 1 seat" in told
        assert "NOT refunded" not in told
        assert page(refund) not in told
        assert page(tour) not in told  # which needs a right of its own
        assert "Not shown, as you may not see them: events, dead letters, refunds, e-mails." in told

    def test_nobody_learns_that_an_id_is_known(self) -> None:
        EmailFactory.create(booking_id="BK-1", recipient=ADDRESS)
        RefundFactory.create(booking_id="BK-1", payment_id="pi_1")
        client = staff("view_reservation")
        for term in ("BK-1", "pi_1", ADDRESS):
            assert "Nothing that you may see is known" in text(search(client, term))

    def test_a_person_without_a_role_is_told_so(self) -> None:
        assert "You may see no part of a booking's story" in text(staff().get(reverse("story")))

    def test_no_part_of_the_page_runs_inline(self, admin_client: Client) -> None:
        refund_rows.refused(booking_id="BK-1")
        told = shown(admin_client, "BK-1")
        [content] = re.findall(r'<div class="story">.*</ol>', told, re.DOTALL)
        assert "<script" not in content
        assert " style=" not in content
