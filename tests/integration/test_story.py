"""The story of a booking: what is told of each kind of trouble, to whom, and by what it is found."""

import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from booking_platform.contract.events import BookingCreated
from booking_platform.development.stripe_sandbox import Sandbox
from booking_platform.messaging import arrivals, attempt_log, dead_letters, edits, outbox, retention
from booking_platform.messaging.attempt_log import Said
from booking_platform.messaging.dead_letters import Parking
from booking_platform.messaging.models import Attempt, DeadLetter, OutboxRow, ProcessedEvent
from booking_platform.messaging.rules import CONSUMERS, INVALID, Consumer, Refused
from booking_platform.operations.stories import MOST, TELLERS, Kind, Level, Meaning
from booking_platform.operations.story import Story, looked_for, meanings_of, story_of
from catalog.models import Tour
from notifications.models import CancellationEmail
from payments import tasks
from payments.models import Refund
from tests import events
from tests.factories import EmailFactory, RefundFactory, TourFactory
from tests.integration import email_rows, refund_rows
from tests.integration.admin_pages import (
    CANCELLED,
    CREATED,
    REFUNDS,
    a_parked_event,
    choose,
    confirm,
    parked,
    settle,
)
from tests.platform import Platform

pytestmark = pytest.mark.django_db(transaction=True)

EMAILS = "notification.booking-cancelled"
CHANGED = "tour-catalog.booking-changed"
HOSTILE = '<script>alert(1)</script>"\\\u00a0 é' + "x" * 220


def _parking(consumer: Consumer, event: dict[str, Any]) -> Parking:
    [delivery] = events.deliveries(event)
    arrival = arrivals.read(consumer, delivery, timezone.now())
    assert isinstance(arrival, arrivals.Arrival)
    return arrival.parking(consumer, Refused(INVALID, "no"))


def everything(_: str) -> bool:
    return True


def nothing(_: str) -> bool:
    return False


def story(booking: str, may: Callable[[str], bool] = everything) -> Story:
    return story_of(booking, may)


def told(booking: str, *kinds: Kind) -> list[str]:
    return [entry.what for entry in story(booking).entries if not kinds or entry.kind in kinds]


def point(booking: str, about: str) -> Any:
    [found] = [point for point in story(booking).points if point.about == about]
    return found


def means(term: str, *, private: bool = False) -> list[Meaning]:
    return meanings_of(term, everything, private=private)


def cancel(tour: Tour, booking: str, *queues: str, times: int = 1, **over: Any) -> None:
    event = events.cancelled(tour.pk, booking, **over)
    for queue in queues or (CANCELLED, REFUNDS, EMAILS):
        for _ in range(times):
            settle(queue, event)


@pytest.fixture
def tour(transactional_db: None) -> Tour:
    return TourFactory.create(capacity=20, name="Giverny")


class TestALife:
    def test_a_cancellation_is_told_from_its_event_to_the_mail(
        self, tour: Tour, stripe: Sandbox, payment: str
    ) -> None:
        settle(CREATED, events.created(tour.pk, "BK-1", 3, event_id="e1"))
        refund: dict[str, Any] = {
            "paymentId": payment,
            "amount": 150.0,
            "userEmail": "ann@example.com",
        }
        cancel(tour, "BK-1", seats=2, event_id="e2", seatsRemaining=1, **refund)
        seats = told("BK-1", Kind.SEATS)
        assert seats == [
            f"3 seats of tour {tour.pk} were taken; it had 17 free after that.",
            f"2 seats were given back to tour {tour.pk}; it had 19 free after that.",
        ]
        assert told("BK-1", Kind.EVENT) == [
            "BookingCreated (event e1) came.",
            "BookingCancelled (event e2) came.",
        ]
        part = "for a part of the booking, which keeps 1 seat"
        asked, attempted = told("BK-1", Kind.REFUND)
        assert asked == f"A refund of 150.00 EUR was asked for, {part}: payment {payment}."
        assert attempted.startswith("Attempt 1: Refund completed. Stripe has refund re_")
        assert told("BK-1", Kind.EMAIL)[-1].startswith("Attempt 1: E-mail sent.")
        assert point("BK-1", "Seats").what == f"Holds 1 seat of tour {tour.pk} (Giverny)."
        assert "refunded (Stripe says that it succeeded)" in point("BK-1", "Refund").what
        assert "told; a mail server took the e-mail" in point("BK-1", "E-mail").what
        assert story("BK-1").level is Level.NORMAL

    def test_it_is_in_the_order_of_time(self, tour: Tour, stripe: Sandbox, payment: str) -> None:
        settle(CREATED, events.created(tour.pk, "BK-1"))
        cancel(tour, "BK-1", paymentId=payment, amount=150.0, userEmail="ann@example.com")
        times = [entry.at for entry in story("BK-1").entries]
        assert times == sorted(times)

    def test_repeats_are_counted_for_each_consumer(self, tour: Tour) -> None:
        settle(CREATED, events.created(tour.pk, "BK-1", event_id="e1"))
        cancel(tour, "BK-1", CANCELLED, EMAILS, times=4, event_id="e2")
        cancel(tour, "BK-1", CANCELLED, event_id="e2")
        first, repeats = (
            next(e for e in story("BK-1").entries if word in e.what)
            for word in ("(event e2) came.", "(event e2) came again")
        )
        assert len(first.detail) == 3  # two consumers, and the event's own time
        assert "came again, 4 times by now" in repeats.what
        assert set(repeats.detail) == {f"{CANCELLED}: 4 times", f"{EMAILS}: 3 times"}
        assert not any("e1) came again" in what for what in told("BK-1"))

    def test_repeats_that_come_at_once_are_all_counted(
        self, tour: Tour, threads: ThreadPoolExecutor
    ) -> None:
        group = [events.created(tour.pk, f"BK-{n}", event_id=f"e{n:02}") for n in range(20)]
        settle(CREATED, *group)

        def again(number: int) -> None:
            try:
                settle(CREATED, *group[number:], *group[:number])
            finally:
                connection.close()

        list(threads.map(again, range(8)))
        assert set(ProcessedEvent.objects.values_list("repeats", flat=True)) == {8}

    def test_a_cancellation_before_the_creation(self, tour: Tour) -> None:
        cancel(tour, "BK-1", CANCELLED, seats=2)
        stands = point("BK-1", "Seats")
        assert "2 seats" in stands.what
        assert "cancelled before its creation arrived" in stands.what
        assert stands.level is Level.ATTENTION
        assert "The creation is awaited" in stands.then
        settle(CREATED, events.created(tour.pk, "BK-1", 2))
        assert "it was cancelled" in point("BK-1", "Seats").what

    def test_a_rejected_booking(self, tour: Tour) -> None:
        settle(CREATED, events.created(tour.pk, "BK-1", 21))
        stands = point("BK-1", "Seats")
        assert "asked for 21 seats" in stands.what
        assert stands.level is Level.ATTENTION
        [asked] = told("BK-1", Kind.SEATS)
        assert asked.startswith("The booking asked for 21 seats and got none")
        assert "it had 20 free" in asked

    def test_what_happened_longer_ago_than_seats_are_remembered(self, tour: Tour) -> None:
        settle(CREATED, events.created(tour.pk, "BK-1", 3))
        cancel(tour, "BK-1", CANCELLED, seats=2, seatsRemaining=1)
        ProcessedEvent.objects.all().delete()
        assert told("BK-1", Kind.EVENT) == []
        remembered = told("BK-1", Kind.SEATS)
        assert any("first heard of the booking, of 3 seats" in what for what in remembered)
        assert any("2 cancelled, 1 remain" in what for what in remembered)


class TestRefunds:
    def test_a_refusal_says_what_stripe_answered_and_what_to_do(
        self, tour: Tour, stripe: Sandbox
    ) -> None:
        cancel(tour, "BK-1", REFUNDS, paymentId="pi_nope", amount=80.0)
        stands = point("BK-1", "Refund")
        assert "NOT refunded: Stripe has no such payment" in stands.what
        assert stands.level is Level.PERSON
        assert "mark it settled" in stands.then
        assert [link.to for link in stands.links] == [Refund.objects.get()]
        attempted = story("BK-1").entries[-2:]
        answer = next(entry for entry in attempted if entry.kind is Kind.REFUND)
        assert answer.level is Level.PERSON
        assert "Stripe has no such payment: No such payment_intent: 'pi_nope'" in answer.what
        assert answer.detail[0].startswith("Request id of the answer: req_")

    def test_an_approval_is_told_once_with_its_reason(
        self, tour: Tour, stripe: Sandbox, payment: str, settings: Any, admin_client: Client
    ) -> None:
        settings.REFUND_REVIEW_ABOVE = {"eur": 100}
        cancel(tour, "BK-1", REFUNDS, paymentId=payment, amount=150.0)
        assert "approve the refund" in point("BK-1", "Refund").then
        refund = Refund.objects.get()
        confirm(admin_client, choose(admin_client, "approve", refund), why="called the customer")
        tasks.attempt(refund.pk)
        [decided] = told("BK-1", Kind.STAFF)
        assert decided.startswith(f"admin decided about refund {refund.pk}: approved")
        assert decided.endswith("called the customer")
        LogEntry.objects.all().delete()  # as for a decision that another program has stored
        [decided] = told("BK-1", Kind.STAFF)
        assert "admin approved refund" in decided
        assert point("BK-1", "Refund").level is Level.NORMAL

    def test_attempts_that_come_to_the_same_are_one_entry(
        self, tour: Tour, stripe: Sandbox, quick: None
    ) -> None:
        payment = stripe.payment(amount=15_000, currency="eur")
        cancel(tour, "BK-1", REFUNDS, paymentId=payment, amount=150.0)
        refund = Refund.objects.get()
        Attempt.objects.all().delete()
        for _ in range(5):
            refund.refresh_from_db()
            assert refund.try_again()
            tasks.attempt(refund.pk)
        [entry] = [e for e in story("BK-1").entries if "in a row" in e.what]
        assert "5 attempts in a row: Refund as before" in entry.what

    def test_a_worker_that_died_leaves_a_word(self, tour: Tour, stripe: Sandbox) -> None:
        payment = stripe.payment(amount=15_000, currency="eur")
        past = timezone.now() - timedelta(minutes=5)
        refund = RefundFactory.create(
            booking_id="BK-1", payment_id=payment, attempts=1, lease_until=past
        )
        tasks.attempt(refund.pk)
        words = told("BK-1", Kind.REFUND)
        assert any("Attempt 1: Its worker did not finish it" in what for what in words)
        assert any("Attempt 2: Refund completed" in what for what in words)

    def test_one_from_before_attempts_were_kept(self) -> None:
        refund_rows.refused(booking_id="BK-1", attempts=3)
        assert any("attempted 3 times: Stripe refused" in what for what in told("BK-1"))

    def test_one_that_was_settled(self) -> None:
        refund_rows.settled(booking_id="BK-1")
        assert "ada closed it: paid by hand" in point("BK-1", "Refund").what
        assert story("BK-1").level is Level.NORMAL

    def test_a_cancellation_that_asked_for_none(self, tour: Tour) -> None:
        cancel(tour, "BK-1", REFUNDS)
        assert point("BK-1", "Refund").what == "A cancellation named no payment to refund."


class TestWhatIsNotStored:
    """A cancellation that is parked asks for a refund and an e-mail that no table has."""

    BAD: ClassVar[dict[str, Any]] = {"amount": -1, "userEmail": "nobody"}

    @pytest.mark.parametrize(("queue", "about"), [(REFUNDS, "Refund"), (EMAILS, "E-mail")])
    def test_the_letter_that_waits_is_named(self, tour: Tour, queue: str, about: str) -> None:
        assert point("BK-1", about).what == "None was asked for."
        cancel(tour, "BK-1", queue, **self.BAD)
        letter = DeadLetter.objects.get()
        stands = point("BK-1", about)
        assert stands.what == (
            f"None is stored for an event that could not be applied: it is dead letter {letter.pk}, "
            "which waits for a person."
        )
        assert stands.level is Level.PERSON
        assert [link.to for link in stands.links] == [letter]
        other = {"Refund": "E-mail", "E-mail": "Refund"}[about]
        assert point("BK-1", other).what == "None was asked for."

    def test_it_is_said_beside_a_refund_that_is_stored(self, tour: Tour) -> None:
        RefundFactory.create(booking_id="BK-1")
        cancel(tour, "BK-1", REFUNDS, **self.BAD)
        points = [each.what for each in story("BK-1").points if each.about == "Refund"]
        assert sum("None is stored for an event" in each for each in points) == 1
        assert len(points) == 2
        DeadLetter.objects.update(state="discarded")
        assert "NOT refunded" in point("BK-1", "Refund").what

    def test_one_that_was_discarded_is_said(self, tour: Tour) -> None:
        cancel(tour, "BK-1", REFUNDS, **self.BAD)
        DeadLetter.objects.update(state="discarded")
        assert "(discarded: a person decided" in point("BK-1", "Refund").what

    def test_whoever_may_not_see_letters_is_not_told_of_them(self, tour: Tour) -> None:
        cancel(tour, "BK-1", REFUNDS, **self.BAD)
        [stands] = story("BK-1", lambda right: right == "payments.view_refund").points
        assert stands.what.startswith("None is stored. Your account may not see")
        assert not stands.links


class TestEmails:
    def test_an_uncertain_one_that_is_sent_again(self, admin_client: Client) -> None:
        email = email_rows.uncertain(booking_id="BK-1")
        stands = point("BK-1", "E-mail")
        assert "may have been told or not" in stands.what
        assert stands.level is Level.PERSON
        confirm(admin_client, choose(admin_client, "resend", email), why="she has not got it")
        assert "not told yet" in point("BK-1", "E-mail").what
        [decided] = told("BK-1", Kind.STAFF)
        assert "she has not got it" in decided

    @pytest.mark.parametrize(
        ("make", "words", "level"),
        [
            (email_rows.failed, "was NOT told: RCPT: 550", Level.PERSON),
            (email_rows.sent, "told; a mail server took", Level.NORMAL),
            (email_rows.settled, "ada closed it: told by phone", Level.NORMAL),
        ],
    )
    def test_how_each_stands(self, make: Any, words: str, level: Level) -> None:
        make(booking_id="BK-1")
        stands = point("BK-1", "E-mail")
        assert words in stands.what
        assert stands.level is level

    def test_no_address_is_told(self) -> None:
        email_rows.failed(booking_id="BK-1", recipient="ann@example.com")
        assert "ann@" not in repr(story("BK-1"))

    def test_with_the_address_the_answers_are_forgotten(self, settings: Any) -> None:
        email = email_rows.failed(booking_id="BK-1")
        attempt_log.note(email, 1, Said("E-mail waits for a person", "550"), timezone.now())
        old = timezone.now() - settings.EMAIL_RETENTION - timedelta(days=1)
        CancellationEmail.objects.update(created_at=old)
        ProcessedEvent.objects.create(event_id="now", consumer=CREATED, occurred_at=timezone.now())
        assert retention.clean_up()
        assert not Attempt.objects.exists()
        assert any("were forgotten" in what for what in told("BK-1"))


class TestDeadLetters:
    def test_one_that_waits(self, tour: Tour) -> None:
        settle(CREATED, events.created(tour.pk, "BK-1", 3))
        settle(CREATED, events.created(tour.pk, "BK-1", 4, event_id="e2"))
        stands = point("BK-1", "Dead letters")
        assert stands.what.startswith("One event of this booking could not be applied")
        assert stands.level is Level.PERSON
        assert stands.links[0].to == DeadLetter.objects.get()
        [parking] = told("BK-1", Kind.DEAD_LETTER)
        assert f"BookingCreated (event e2) could not be applied by {CREATED}" in parking

    @pytest.mark.parametrize(
        "body",
        [
            b'{"eventId": "e1", "eventType": "BookingCreated", "payload": {"bookingId": "BK-1"}}',
            b'{"eventId": "e1", "payload": {"x": {"bookingId": "other"}, "bookingId": "BK-1"}}',
            b'{"payload": {"bookingId": "BK-1", "tourId": ',
            b'{"specversion": "1.0", "data": {"bookingId": "BK-1"}}',
        ],
    )
    def test_one_that_is_no_event_is_found_by_what_can_be_read(self, body: bytes) -> None:
        letter = parked(body)
        assert letter.aggregate_id == "BK-1"
        assert told("BK-1", Kind.DEAD_LETTER)

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"\xff\xfe",
            b'{"payload": {"bookingId": 17}}',
            b'{"payload": {"bookingId": "' + b"x" * 256 + b'"}}',
            b'{"payload": {"bookingId": "a\\u0000b"}}',
        ],
    )
    def test_one_of_which_no_booking_can_be_read(self, body: bytes) -> None:
        assert parked(body).aggregate_id == ""

    @pytest.mark.parametrize("about", ["x" * 256, "a\0b", "\ud800", 17])
    def test_a_payload_that_says_what_can_not_be_stored_is_parked(
        self, tour: Tour, about: Any
    ) -> None:
        """The bug of an app: its event must not come again for ever."""

        class Odd(BookingCreated, frozen=True, kw_only=True):
            @property
            def aggregate_id(self) -> str:
                return about  # type: ignore[no-any-return]

        consumer = replace(CONSUMERS[CREATED], payload=Odd)
        event = events.created(tour.pk, "BK-1", event_id="e1") | {"eventType": "Odd"}
        dead_letters.park([_parking(consumer, event)])
        assert DeadLetter.objects.get().aggregate_id in ("", "17")

    def test_one_from_before_is_found_by_its_event(self, tour: Tour) -> None:
        cancel(tour, "BK-1", CANCELLED, event_id="e1")
        settle(EMAILS, events.cancelled(tour.pk, "BK-1", event_id="e1", userEmail="nobody"))
        DeadLetter.objects.update(aggregate_id="")
        assert told("BK-1", Kind.DEAD_LETTER)

    def test_one_of_another_booking_with_the_same_event_id_is_not_told(self, tour: Tour) -> None:
        settle(CREATED, events.created(tour.pk, "BK-1", event_id="e1"))
        settle(CREATED, events.created(tour.pk, "BK-2", event_id="e1"))
        assert told("BK-1", Kind.DEAD_LETTER) == []
        assert len(told("BK-2", Kind.DEAD_LETTER)) == 1

    def test_one_that_was_discarded(self, admin_client: Client) -> None:
        letter = a_parked_event()
        asked = choose(admin_client, "discard", letter)
        confirm(admin_client, asked, why="a test of the producer's")
        [decided] = told("BK-1", Kind.STAFF)
        assert f"admin decided about dead letter {letter.pk}" in decided
        assert "a test of the producer's" in decided
        assert not [point for point in story("BK-1").points if point.about == "Dead letters"]

    def test_one_that_was_corrected_and_sent_under_another_id(
        self, tour: Tour, platform: Platform
    ) -> None:
        letter = parked(events.created(999_999, "BK-1", event_id="e1"))
        edit = edits.examine(letter, edits.draft(letter).replace("999999", str(tour.pk)))
        assert edits.send_edited(letter, edit, by="ada", why="misspelt")
        [decided] = told("BK-1", Kind.STAFF)
        assert f"ada looked at dead letter {letter.pk} and corrected it" in decided
        assert f"sent it as event {edit.event_id}: misspelt" in decided
        assert [meaning.booking for meaning in means(edit.event_id)] == ["BK-1"]

    def test_one_that_was_corrected_to_another_booking_is_told_of_both(
        self, tour: Tour, platform: Platform
    ) -> None:
        letter = parked(events.created(999_999, "BK-9", event_id="e1"))
        text = edits.draft(letter).replace("999999", str(tour.pk)).replace("BK-9", "BK-1")
        edit = edits.examine(letter, text)
        assert edits.send_edited(letter, edit, by="ada", why="misspelt")
        settle(CREATED, edit.body)
        for booking in ("BK-1", "BK-9"):
            assert len(told(booking, Kind.DEAD_LETTER)) == 1

    def test_one_that_a_command_closed(self) -> None:
        dead_letters.discard(a_parked_event(), by="cron", why="old")
        [decided] = told("BK-1", Kind.STAFF)
        assert decided.startswith("cron looked at dead letter")
        assert decided.endswith("and discarded it: old")


class TestAnnouncements:
    def test_all_that_is_announced_of_a_booking_is_told(
        self, tour: Tour, stripe: Sandbox, payment: str, settings: Any
    ) -> None:
        settings.REFUND_REVIEW_ABOVE = {"eur": 100}
        settle(CREATED, events.created(tour.pk, "BK-1", 3))
        settle(CHANGED, events.changed(tour.pk, "BK-1", 5, revision=1))
        settle(CHANGED, events.changed(tour.pk, "BK-1", 50, revision=2))
        settle(CREATED, events.created(tour.pk, "BK-1", 8))
        dead_letters.discard(DeadLetter.objects.get(), by="ada", why="wrong")
        mail: dict[str, Any] = {"userEmail": "ann@example.com"}
        cancel(tour, "BK-1", paymentId=payment, amount=150.0, seats=5, revision=3, **mail)
        refund = Refund.objects.get()
        assert refund.approve(by="ada", why="fine")
        tasks.attempt(refund.pk)
        email = email_rows.failed(booking_id="BK-1", seats_remaining=4, announced=1)
        email.settle(by="ada", why="told by phone")
        cancel(tour, "BK-2", CANCELLED, seats=1)
        settle(CHANGED, events.changed(tour.pk, "BK-3", 5, revision=1))
        stored: Counter[str] = Counter()
        for row in OutboxRow.objects.all():
            stored.update(key for key, _, _ in json.loads(row.messages))
        del stored["tour.availability-changed"]
        said = Counter(
            what.rpartition(" ")[2].removesuffix(".")
            for booking in ("BK-1", "BK-2", "BK-3")
            for what in told(booking, Kind.ANNOUNCEMENT)
        )
        assert said == stored
        assert len(stored) >= 10

    def test_what_waits_is_not_said_to_be_announced(self, tour: Tour) -> None:
        settle(CREATED, events.created(tour.pk, "BK-1"))
        [waits] = told("BK-1", Kind.ANNOUNCEMENT)
        assert waits == "Other systems are to be told, if they are not yet: seats.reserved."
        assert story("BK-1").level is Level.NORMAL
        OutboxRow.objects.update(created_at=timezone.now() - timedelta(hours=1))
        assert "have heard of nothing" in point("BK-1", "Announcements").what
        OutboxRow.objects.update(published_at=timezone.now())
        assert story("BK-1").level is Level.NORMAL
        assert told("BK-1", Kind.ANNOUNCEMENT) == ["Other systems were told: seats.reserved."]
        assert not outbox.waits()


class TestWhoMayHear:
    def test_each_part_needs_its_right(self, tour: Tour, stripe: Sandbox) -> None:
        settle(CREATED, events.created(tour.pk, "BK-1"))
        cancel(tour, "BK-1", paymentId="pi_nope", amount=80.0, userEmail="ann@example.com")
        assert story("BK-1", nothing).entries == []
        assert story("BK-1", nothing).hidden == list(TELLERS)
        kinds = {
            "messaging.view_processedevent": Kind.EVENT,
            "catalog.view_reservation": Kind.SEATS,
            "payments.view_refund": Kind.REFUND,
            "notifications.view_cancellationemail": Kind.EMAIL,
        }
        for right, kind in kinds.items():
            heard = {entry.kind for entry in story("BK-1", right.__eq__).entries}
            assert heard - {Kind.ANNOUNCEMENT} == {kind}

    def test_nothing_is_found_without_the_right(self) -> None:
        RefundFactory.create(booking_id="BK-1", payment_id="pi_1")
        assert meanings_of("pi_1", nothing, private=True) == []
        assert looked_for(nothing, private=True) == []


class TestWhatATermMeans:
    def test_a_booking_by_each_of_its_ids(self, tour: Tour) -> None:
        settle(CREATED, events.created(tour.pk, "BK-1", event_id="e1"))
        refund_rows.completed(booking_id="BK-1", payment_id="pi_1", event_id="e2")
        email_rows.sent(booking_id="BK-1", message_id="<m@example.com>", event_id="e3")
        refund = Refund.objects.get()
        terms = ("BK-1", "e1", "e2", "e3", "pi_1", "re_BK-1", "<m@example.com>")
        for term in (*terms, refund.idempotency_key):
            assert [meaning.booking for meaning in means(term)] == ["BK-1"], term
            assert means(term)[0].why

    def test_an_address_finds_all_its_bookings_in_any_case(self) -> None:
        for booking in ("BK-1", "BK-2"):
            EmailFactory.create(booking_id=booking, recipient="Ann@Example.com")
        EmailFactory.create(recipient="joann@example.com")
        found = means(" ann@EXAMPLE.com ".strip(), private=True)
        assert {meaning.booking for meaning in found} == {"BK-1", "BK-2"}
        assert means("ann@example.com", private=False) == []

    def test_an_id_that_is_two_things_is_a_choice(self, tour: Tour) -> None:
        settle(CREATED, events.created(tour.pk, "X", event_id="e1"))
        settle(CREATED, events.created(tour.pk, "Y", event_id="X"))
        assert {meaning.booking for meaning in means("X")} == {"X", "Y"}

    def test_a_dead_letter_that_names_no_booking(self) -> None:
        letter = parked(b'{"eventId": "e1", "eventType": "BookingCreated"}')
        [meaning] = means("e1")
        assert (meaning.booking, meaning.record) == ("", letter)

    def test_a_creation_without_a_booking_id(self, tour: Tour) -> None:
        settle(CREATED, events.created(tour.pk, event_id="e1"))
        [meaning] = means("e1")
        assert (meaning.booking, meaning.record) == ("", ProcessedEvent.objects.get())

    def test_a_tour_is_no_booking(self, tour: Tour) -> None:
        settle("web-shop.availability-changed", events.availability(tour.pk, 3))
        assert means(str(tour.pk)) == []
        assert told(str(tour.pk), Kind.EVENT) == []

    @pytest.mark.parametrize("term", ["", "\0", "x" * 5000, "%", "BK-%", "' OR 1=1 --"])
    def test_what_is_no_id_means_nothing(self, term: str) -> None:
        RefundFactory.create(booking_id="BK-1")
        assert means(term, private=True) == []


class TestHostileIds:
    def test_a_story_of_one(self, tour: Tour) -> None:
        settle(CREATED, events.created(tour.pk, "b", event_id="e"))
        hidden = "BK\u200b-1 "
        ProcessedEvent.objects.update(aggregate_id=hidden, event_id=hidden)
        RefundFactory.create(booking_id=hidden, payment_id="pi\u202e_1")
        words = "".join(told(hidden))
        assert r"BK\u200b-1\u0020" in words
        assert r"pi\u202e_1" in words
        assert "\u200b" not in words
        assert "\u202e" not in words


class TestBounds:
    def queries(self, booking: str) -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            story(booking)
        return len(captured)

    def test_the_number_of_queries_does_not_depend_on_the_rows(
        self, tour: Tour, stripe: Sandbox
    ) -> None:
        for booking, steps in (("BK-1", 1), ("BK-2", 12)):
            settle(CREATED, events.created(tour.pk, booking, 1))
            for step in range(steps):
                settle(CREATED, events.created(tour.pk, booking, 5, event_id=f"{booking}-{step}"))
                cancel(tour, booking, CANCELLED, event_id=f"c-{booking}-{step}", seatsRemaining=0)
                refund_rows.settled(booking_id=booking, seats_remaining=step, payment_id="pi")
                email_rows.settled(booking_id=booking, seats_remaining=step)
        story("BK-1")  # what is read once for a process
        assert self.queries("BK-1") == self.queries("BK-2") <= 20

    def test_a_story_without_end_is_cut(self, tour: Tour) -> None:
        now = timezone.now()
        ProcessedEvent.objects.bulk_create(
            ProcessedEvent(
                event_id=f"e{number}",
                consumer=CREATED,
                event_type="BookingCreated",
                aggregate_id="BK-1",
                outcome="unchanged",
                processed_at=now,
            )
            for number in range(MOST + 100)
        )
        assert story("BK-1").more
        assert len(story("BK-1").entries) <= MOST

    def test_attempts_of_a_row_are_bounded(self) -> None:
        refund = RefundFactory.create(booking_id="BK-1")
        for number in range(attempt_log.MOST + 20):
            attempt_log.note(refund, number, Said("Refund as before", str(number)), timezone.now())
        assert Attempt.objects.count() == attempt_log.MOST
        assert Attempt.objects.filter(answer=str(attempt_log.MOST + 19)).exists()

    def test_attempts_are_forgotten_after_some_time(self) -> None:
        refund = RefundFactory.create()
        now = timezone.now()
        attempt_log.note(refund, 1, Said("old"), now - attempt_log.KEPT - timedelta(days=1))
        attempt_log.note(refund, 2, Said("new"), now)
        assert attempt_log.forget_attempts() == 1
        assert Attempt.objects.get().outcome == "new"

    @pytest.mark.parametrize("answer", ["a\0b", "\ud800", HOSTILE * 20])
    def test_any_answer_can_be_kept(self, answer: str) -> None:
        attempt_log.note(RefundFactory.create(), 1, Said("x", answer, answer), timezone.now())
        assert Attempt.objects.count() == 1
