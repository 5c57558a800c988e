"""The audit: each broken promise is found and named, and nothing else is."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain
from random import Random
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.models import Sum
from django.test import Client
from django.test.utils import CaptureQueriesContext

from booking_platform.development.stripe_sandbox import Sandbox
from booking_platform.messaging import clock, inbox
from booking_platform.messaging.models import DeadLetter, OutboxRow, ProcessedEvent
from booking_platform.messaging.paging import in_spans
from booking_platform.messaging.rules import CONSUMERS
from booking_platform.operations import auditing, audits, kernel_audits
from booking_platform.operations.models import AuditRun
from booking_platform.operations.tasks import audit
from catalog import audits as catalog_audits
from catalog.models import Reservation, Tour
from notifications.models import CancellationEmail
from payments.models import Refund
from tests.events import cancelled, created, deliveries
from tests.factories import EmailFactory, RefundFactory, TourFactory
from tests.integration.test_booking_lives import again, life
from tests.platform import Platform, assert_adds_up, processed
from tests.servers import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

REFUNDS, EMAILS = "payment-gateway.booking-cancelled", "notification.booking-cancelled"
SEATS = "tour-catalog.booking-cancelled"
PAID = {"amount": 150.0, "userEmail": "ann@example.com", "tourName": "Louvre"}
HOURS = timedelta(hours=3)


@pytest.fixture(autouse=True)
def _a_stripe(stripe: Sandbox) -> None:
    """Refunds are attempted as they are stored."""


def settle(*events: dict[str, Any]) -> None:
    """Apply events as all their consumers would."""
    keys = {
        "BookingCreated": "created",
        "BookingCancelled": "cancelled",
        "BookingChanged": "changed",
    }
    for event in events:
        key = f"booking.{keys[event['eventType']]}"
        for consumer in CONSUMERS.values():
            if consumer.routing_key == key:
                inbox.process(consumer, deliveries(event))


def found() -> dict[str, list[str]]:
    """Return what an audit finds: the words, by the audit's name."""
    report = auditing.run()
    assert report.complete
    return {
        result.audit.name: [finding.words for finding in result.first]
        for result in report.results
        if result.found
    }


def some_time_ago() -> None:
    """Move all that was processed or announced into the past."""
    then = clock.now() - HOURS
    ProcessedEvent.objects.update(processed_at=then)
    OutboxRow.objects.update(published_at=then)


@contextmanager
def taken_back() -> Iterator[None]:
    """Take back what is done to the database in the block."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def printed(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    """Return the exit status of the command, and what it prints."""
    status = 0
    try:
        call_command("audit", *options)
    except SystemExit as ended:
        status = int(ended.code or 0)
    return status, capsys.readouterr().out


@pytest.fixture
def booked(payment: str) -> Tour:
    """A tour with one booking that is cancelled, refunded and told, some hours ago; another stands."""
    tour: Tour = TourFactory.create(capacity=20)
    settle(
        created(tour.pk, "B", 3),
        created(tour.pk, "C", 2),
        cancelled(tour.pk, "B", 3, event_id="E", paymentId=payment, **PAID),
    )
    some_time_ago()
    return tour


# What somebody may do to a database past the platform, the audit that finds it, and what that must say.

PLANTED: dict[str, tuple[Callable[[], object], str, str]] = {
    "a reservation is gone": (
        lambda: Reservation.objects.filter(booking_id="C").delete(),
        "seats",
        "says that 2 seats are reserved, and its reservations hold 0",
    ),
    "a reservation holds more": (
        lambda: Reservation.objects.filter(booking_id="C").update(seats=3),
        "seats",
        "says that 2 seats are reserved, and its reservations hold 3",
    ),
    "a capacity was changed in SQL": (
        lambda: Tour.objects.update(capacity=21, available_seats=19),
        "seat-history",
        "last change in its history left (version 3): 21 seats − 2 reserved = 19 available",
    ),
    "a refund is gone": (
        lambda: Refund.objects.all().delete(),
        "refunds",
        "Booking B has 0 of the 1 refunds",
    ),
    "an e-mail is gone": (
        lambda: CancellationEmail.objects.all().delete(),
        "emails",
        "Booking B has 0 of the 1 e-mails",
    ),
    "payments never had the event": (
        lambda: ProcessedEvent.objects.filter(consumer=REFUNDS).delete(),
        "events",
        f"and not by {REFUNDS}",
    ),
    "only payments had the event": (
        lambda: ProcessedEvent.objects.filter(consumer=EMAILS).delete(),
        "events",
        f"and not by {EMAILS}",
    ),
    "a replay was lost": (
        lambda: (
            ProcessedEvent.objects.filter(consumer=REFUNDS).delete(),
            letter("replayed", resolved_at=clock.now() - HOURS),
        ),
        "events",
        f"Event E of booking B was processed by {SEATS} and not by {REFUNDS}",
    ),
    "a refund is due for long": (
        lambda: Refund.objects.update(next_attempt_at=clock.now() - HOURS, lease_until=None),
        "overdue",
        "Refund",
    ),
    "a lease ended long ago": (
        lambda: CancellationEmail.objects.update(lease_until=clock.now() - HOURS),
        "overdue",
        "Cancellation e-mail",
    ),
    "a refund is forgotten": (
        lambda: Refund.objects.update(status="in_progress", lease_until=None, next_attempt_at=None),
        "refunds-go-on",
        "of booking B is in progress, and neither",
    ),
    "a failed refund asks nobody": (
        lambda: Refund.objects.update(status="failed", needs_review=False),
        "refunds-go-on",
        "of booking B is failed, and neither",
    ),
    "an e-mail is forgotten": (
        lambda: CancellationEmail.objects.update(
            state="pending", lease_until=None, next_attempt_at=None
        ),
        "emails-go-on",
        "of booking B is pending",
    ),
    "an edited event was lost": (
        lambda: letter("edited", edited_event_id="E-2", resolved_at=clock.now() - HOURS),
        "edited",
        "Event E-2, which a person made of dead letter",
    ),
    "an announcement waits": (
        lambda: OutboxRow.objects.update(published_at=None, created_at=clock.now() - HOURS),
        "outbox",
        "have not been published; the oldest waits since",
    ),
}


def letter(state: str, **columns: Any) -> DeadLetter:
    return DeadLetter.objects.create(
        queue=REFUNDS, event_id="E", fingerprint="f", reason="differs", state=state, **columns
    )


class TestWhatIsFound:
    def test_each_planted_fault_is_found_named_and_the_only_finding(self, booked: Tour) -> None:
        assert found() == {}
        for what, (plant, name, words) in PLANTED.items():
            with taken_back():
                plant()
                said = found()
                assert list(said) == [name], what
                assert words in said[name][0], what

    def test_numbers_that_do_not_add_up_are_found(self, booked: Tour) -> None:
        """The database refuses them, as long as nobody drops its constraint."""
        drop, restore = "ALTER TABLE tours DROP CONSTRAINT tours_available_seats_add_up", "SELECT 1"
        if connection.vendor == "sqlite":
            drop, restore = (
                f"PRAGMA ignore_check_constraints = {state}" for state in ("ON", "OFF")
            )
        with taken_back(), connection.cursor() as cursor:
            cursor.execute(drop)
            Tour.objects.update(available_seats=7)
            cursor.execute(restore)
            assert "7 seats are available, and by its numbers 18 are" in found()["seats"][0]

    def test_each_finding_says_how_to_mend_it(self, booked: Tour) -> None:
        for plant, _, _ in PLANTED.values():
            plant()
        for result in auditing.run().results:
            for finding in result.first:
                assert finding.mending.endswith(".")
                assert finding.about


class TestWhatIsNoFinding:
    @pytest.mark.parametrize(
        ("state", "columns"),
        [("parked", {}), ("discarded", {}), ("replayed", {"resolved_at": timedelta(seconds=5)})],
    )
    def test_a_dead_letter_is_a_stated_reason(
        self, booked: Tour, state: str, columns: dict[str, timedelta]
    ) -> None:
        ProcessedEvent.objects.filter(consumer=REFUNDS).delete()
        letter(state, **{name: clock.now() - ago for name, ago in columns.items()})
        assert found() == {}

    def test_an_edited_event_goes_to_one_queue_only(self, booked: Tour) -> None:
        refunded = ProcessedEvent.objects.filter(event_id="E", consumer=REFUNDS)
        refunded.update(event_id="E-2")
        letter("edited", edited_event_id="E-2", resolved_at=clock.now() - HOURS)
        assert found() == {}

    def test_an_event_that_may_still_be_in_its_queue_is_none(self, booked: Tour) -> None:
        ProcessedEvent.objects.filter(consumer=REFUNDS).delete()
        ProcessedEvent.objects.update(processed_at=clock.now())
        assert found() == {}

    def test_a_consumer_that_was_not_there_yet_need_not_have_had_an_event(
        self, booked: Tour
    ) -> None:
        ProcessedEvent.objects.filter(consumer=EMAILS).delete()
        settle(cancelled(booked.pk, "C", 2, paymentId="pi_1", amount=1.0))
        assert found() == {}

    def test_what_the_cleanup_forgets_for_one_consumer_first_is_none(self, booked: Tour) -> None:
        ProcessedEvent.objects.filter(consumer=SEATS).delete()
        ProcessedEvent.objects.update(occurred_at=clock.now() - timedelta(days=31))
        assert found() == {}

    def test_what_asks_for_nothing_needs_no_refund_and_no_mail(self) -> None:
        tour = TourFactory.create()
        settle(created(tour.pk, "B", 3), cancelled(tour.pk, "B", 3))
        some_time_ago()
        assert found() == {}

    def test_what_waits_for_a_person_is_counted_and_breaks_no_promise(self, booked: Tour) -> None:
        letter("parked")
        RefundFactory.create(needs_review=True)
        EmailFactory.create(state="uncertain")
        report = auditing.run()
        assert report.found == 0
        figures = {figure.name: figure.value for figure in report.figures}
        assert figures["dead_letters_open"] == 1
        assert figures["refunds_waiting_for_person"] == 1
        assert figures["emails_waiting_for_person"] == 1

    def test_random_lives_give_none(self) -> None:
        """Steps of bookings in any order and repeated, some parked, refunded from one payment each."""
        chance = Random(7)
        for _ in range(3):
            tour = TourFactory.create(capacity=40)
            lives = [
                *chain.from_iterable(life(tour.pk, f"B{tour.pk}-{n}", chance) for n in range(12))
            ]
            for event in lives:
                if event["eventType"] == "BookingCancelled" and chance.random() < 0.7:
                    event["payload"] |= {"userEmail": "ann@example.com", "tourName": "Louvre"}
                    event["payload"] |= {"paymentId": f"pi_{tour.pk}", "amount": 1.0}
            events = lives + [again(event) for event in chance.sample(lives, 6)]
            chance.shuffle(events)
            settle(*events)
        some_time_ago()
        assert Refund.objects.count() > 5
        assert found() == {}


class TestTheCommand:
    def test_it_prints_what_is_off_and_how_to_mend_it(
        self, booked: Tour, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert printed(capsys)[0] == 0
        Reservation.objects.filter(booking_id="C").update(seats=3)

        status, out = printed(capsys)

        assert status == 1
        assert f"seats: Tour {booked.pk} says that 2 seats are reserved" in out
        assert f"`python manage.py recount_seats {booked.pk}`" in out
        assert "seats: 1 found." in out
        assert "For information: 0 dead letters wait for a person." in out

    def test_recount_seats_mends_it_and_announces_it(self, booked: Tour) -> None:
        Reservation.objects.filter(booking_id="C").update(seats=3)
        version = Tour.objects.get().optimistic_lock_version
        call_command("recount_seats", str(booked.pk))
        assert_adds_up(booked)
        assert booked.optimistic_lock_version == version + 1
        assert '"available":17' in OutboxRow.waiting().get().messages
        assert found() == {}
        with pytest.raises(CommandError, match="no tour 4242"):
            call_command("recount_seats", "4242")

    def test_in_json_it_says_the_same(
        self, booked: Tour, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Refund.objects.all().delete()
        status, out = printed(capsys, "--json")
        said = json.loads(out)
        assert (status, said["found"], said["complete"]) == (1, 1, True)
        [refunds] = [each for each in said["audits"] if each["found"]]
        assert refunds["name"] == "refunds"
        assert refunds["findings"][0]["about"] == "B"
        assert said["figures"]["dead_letters_open"] == 0

    def test_stripe_is_asked_only_if_that_is_said(
        self, booked: Tour, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert printed(capsys, "--stripe")[0] == 0
        Refund.objects.update(stripe_refund_id="re_gone")
        assert printed(capsys)[0] == 0
        status, out = printed(capsys, "--stripe")
        assert status == 1
        assert "re_gone" in out
        assert "`python manage.py reconcile_refunds`" in out

    def test_what_could_not_be_looked_at_is_said_and_is_no_success(
        self, booked: Tour, capsys: pytest.CaptureFixture[str], settings: Any
    ) -> None:
        settings.STRIPE_API_BASE = "http://127.0.0.1:9"
        status, out = printed(capsys, "--stripe")
        assert status == 2
        assert "stripe: NOT COMPLETE: Stripe did not list its refunds" in out
        assert "seats: nothing found" in out


class TestTheTask:
    def test_it_stores_counts_and_logs_what_it_found(
        self, booked: Tour, caplog: pytest.LogCaptureFixture
    ) -> None:
        Refund.objects.all().delete()
        audit()
        run = AuditRun.newest()
        assert run is not None
        assert run.found == 1
        assert run.results["refunds"]["first"][0]["about"] == "B"
        assert run.results["seats"] == {"found": 0, "incomplete": "", "first": []}
        assert caplog.text.count("Audit: a promise is broken") == 1

    def test_its_figures_are_metrics(self, booked: Tour, client: Client) -> None:
        assert "audit_findings{" not in client.get("/metrics").content.decode()
        Refund.objects.update(next_attempt_at=clock.now() - HOURS, lease_until=None)
        letter("parked")
        audit()
        page = client.get("/metrics").content.decode()
        assert 'audit_findings{audit="overdue"} 1.0' in page
        assert 'audit_findings{audit="seats"} 0.0' in page
        assert 'audit_incomplete{audit="seats"} 0.0' in page
        assert "audit_finished_timestamp_seconds " in page
        assert "attempts_overdue 1.0" in page
        assert "dead_letters_open 1.0" in page
        assert "dead_letters_oldest_open_seconds " in page
        assert "refunds_waiting_for_person 0.0" in page

    def test_old_runs_are_forgotten_but_for_the_newest(self, booked: Tour) -> None:
        for _ in range(3):
            audit()
        AuditRun.objects.update(finished_at=clock.now() - timedelta(days=91))
        assert auditing.forget_runs() == 2
        assert AuditRun.objects.count() == 1


class TestManyRows:
    def test_statements_are_few_whatever_the_rows(self) -> None:
        """100,000 reservations of 50 tours: one statement finds the ends of a span, one looks."""
        tours = TourFactory.create_batch(50, capacity=5000)
        with connection.cursor() as cursor:
            cursor.execute(
                "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99999) "
                "INSERT INTO reservations (booking_id, tour_id, seats, state, created_event_id, "
                "cancelled_event_id, created_at, updated_at) SELECT 'B' || i, %s + i %% 50, 2, "
                "'reserved', '', '', CURRENT_TIMESTAMP, CURRENT_TIMESTAMP FROM n",
                [tours[0].pk],
            )
        Tour.objects.update(reserved_seats=4000, available_seats=1000)
        with CaptureQueriesContext(connection) as queries:
            assert list(catalog_audits.seats()) == []
        assert len(queries) <= 5

    def test_spans_hold_each_row_once(self) -> None:
        tours = TourFactory.create_batch(7)
        Tour.objects.filter(pk=tours[2].pk).delete()
        for size in (1, 2, 3, 6, 100):
            spans = [
                [each.pk for each in span.order_by("pk")]
                for span in in_spans(Tour.objects.all(), size)
            ]
            assert [pk for span in spans for pk in span] == [t.pk for t in tours if t != tours[2]]
            assert max(map(len, spans)) <= size

    def test_findings_are_the_same_in_small_spans(
        self, booked: Tour, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(audits, "SPAN", 1)
        monkeypatch.setattr(kernel_audits, "SPAN", 1)
        monkeypatch.setattr(catalog_audits, "TOURS", 1)
        assert found() == {}
        ProcessedEvent.objects.filter(consumer=SEATS).delete()
        assert len(found()["events"]) == 1


@pytest.mark.servers
class TestBesideWorkers:
    def test_groups_that_commit_meanwhile_are_no_finding(
        self, platform: Platform, tour: Tour
    ) -> None:
        few = [TourFactory.create(capacity=1000).pk for _ in range(3)]
        for first in range(0, 2000, 250):  # a busy broker is not to be sent more than it reads
            numbers = range(first, first + 250)
            platform.publish(created(few[n % 3], f"B{n}", 1 + n % 4) for n in numbers)
        platform.start("-c", "2", "-Q", "catalog")
        # Of creations alone: those that come before their cancellation reserve nothing.
        in_two_statements = [self.read_in_two_statements()]
        platform.publish(
            [cancelled(few[n % 3], f"B{n}", 1) for n in range(1000)], key="booking.cancelled"
        )
        while processed() < 3000:
            assert list(catalog_audits.seats()) == []
            assert found() == {}
            in_two_statements.append(self.read_in_two_statements())
        assert not all(in_two_statements), "no group committed meanwhile: this test shows nothing"
        assert len(in_two_statements) > 1, "nothing was looked for meanwhile"

    @staticmethod
    def read_in_two_statements() -> bool:
        """Return whether the numbers seem to add up to who does not look at one moment."""
        said, before = Tour.objects.aggregate(seats=Sum("reserved_seats"))["seats"], processed()
        wait_until(lambda: processed() > min(before, 2999), what="a group commits")
        held = Reservation.objects.filter(state="reserved").aggregate(seats=Sum("seats"))["seats"]
        return bool(said == (held or 0))
