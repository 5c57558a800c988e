"""The nightly cleanup: what it puts off, and what it removes from dead letters."""

from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.utils import timezone

from booking_platform.messaging import clock, dead_letters, inbox, retention, tasks
from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from booking_platform.messaging.rules import CONSUMERS
from notifications.models import CancellationEmail
from tests.events import cancelled, created, deliveries
from tests.factories import EmailFactory, TourFactory
from tests.integration.admin_pages import listing, page, text

pytestmark = pytest.mark.django_db(transaction=True)

CREATED = "tour-catalog.booking-created"
EMAILS = "notification.booking-cancelled"


def processed(name: str, *, days: float, stamped: float | None = None) -> None:
    """Store an event that was processed so many days ago, and stamped so many days ago."""
    now = timezone.now()
    ProcessedEvent.objects.create(
        event_id=name,
        consumer=CREATED,
        processed_at=now - timedelta(days=days),
        occurred_at=now - timedelta(days=days if stamped is None else stamped),
    )


def remembered() -> list[str]:
    return sorted(ProcessedEvent.objects.values_list("event_id", flat=True))


class TestAClockThatMayBeWrong:
    """Were the database's clock 40 days ahead, every event would look like these."""

    @pytest.fixture(autouse=True)
    def _all_is_old(self) -> None:
        processed("one", days=40)
        processed("two", days=31)
        mail = EmailFactory.create(state="failed", recipient="ann@example.com")
        old = timezone.now() - timedelta(days=100)
        CancellationEmail.objects.filter(pk=mail.pk).update(created_at=old)

    def test_nothing_is_deleted_and_a_person_is_told(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        tasks.cleanup()
        assert remembered() == ["one", "two"]
        assert CancellationEmail.objects.get().recipient == "ann@example.com"
        [record] = [each for each in caplog.records if each.levelname == "ERROR"]
        assert "Cleanup put off" in record.getMessage()
        assert "python manage.py cleanup --idle" in record.getMessage()

    def test_a_replay_does_not_bear_it_out(self) -> None:
        processed("a replay in that time", days=0, stamped=31)
        tasks.cleanup()
        assert len(remembered()) == 3

    def test_a_fresh_event_does(self) -> None:
        inbox.process(
            CONSUMERS[CREATED], deliveries(created(TourFactory.create().pk, event_id="three"))
        )
        tasks.cleanup()
        assert remembered() == ["three"]
        assert CancellationEmail.objects.get().recipient == ""

    def test_a_person_can_say_that_there_were_no_events(self) -> None:
        with pytest.raises(CommandError, match="the newest was processed on"):
            call_command("cleanup")
        assert remembered() == ["one", "two"]
        call_command("cleanup", "--idle")
        assert remembered() == []


class TestCleanup:
    def test_where_nothing_was_ever_processed_there_is_nothing_to_doubt(self) -> None:
        assert retention.doubt() == ""
        call_command("cleanup")

    def test_a_part_that_fails_holds_up_no_other(self, monkeypatch: pytest.MonkeyPatch) -> None:
        done: list[str] = []

        def fail() -> None:
            raise ValueError("a bug")

        monkeypatch.setattr(retention, "CLEANUP", [fail, lambda: done.append("the other")])
        with pytest.raises(ValueError, match="a bug"):
            tasks.cleanup()
        assert done == ["the other"]


def a_dead_letter(address: Any = "Ann Durand") -> DeadLetter:
    """Park an event that names a customer, as its detail may do too."""
    event = cancelled(1, f"BK-{DeadLetter.objects.count()}", userEmail=address, tourName="Louvre")
    inbox.process(CONSUMERS[EMAILS], deliveries(event))
    letter = DeadLetter.objects.latest("pk")
    DeadLetter.objects.filter(pk=letter.pk).update(detail=f"payload.userEmail is {address!r}")
    return letter


def aged(letter: DeadLetter, days: float) -> None:
    then = timezone.now() - timedelta(days=days)
    DeadLetter.objects.filter(pk=letter.pk, resolved_at__isnull=False).update(resolved_at=then)
    DeadLetter.objects.filter(pk=letter.pk).update(parked_at=then)


def stored() -> str:
    """Return all that the table holds, as text."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM dead_letters")
        rows = cursor.fetchall()
    return " ".join(
        bytes(value).decode() if isinstance(value, memoryview | bytes) else str(value)
        for row in rows
        for value in row
    )


class TestDeadLetters:
    def test_a_closed_one_loses_what_came(self) -> None:
        letter = a_dead_letter()
        assert dead_letters.discard(letter, by="ada", why="a test")
        aged(letter, 91)
        assert "Ann Durand" in stored()
        assert retention.forget_dead_letters() == 1
        assert "Ann Durand" not in stored()
        letter.refresh_from_db()
        assert (bytes(letter.body), letter.detail, letter.forgotten) == (b"", "", True)
        kept = (letter.reason, letter.resolved_by, letter.resolution, bool(letter.event_id))
        assert kept == ("invalid", "ada", "a test", True)
        assert retention.forget_dead_letters() == 0

    def test_a_younger_one_and_an_open_one_keep_it(self, settings: Any) -> None:
        settings.DEAD_LETTER_RETENTION = timedelta(days=10)
        young, waiting = a_dead_letter(), a_dead_letter()
        assert dead_letters.discard(young, by="ada", why="a test")
        aged(young, 9)
        aged(waiting, 300)
        assert retention.forget_dead_letters() == 0
        assert stored().count("Ann Durand") == 4

    def test_it_is_part_of_the_nightly_cleanup(self) -> None:
        assert retention.forget_dead_letters in retention.CLEANUP

    def test_it_can_not_be_replayed(self) -> None:
        letter = a_dead_letter()
        DeadLetter.objects.filter(pk=letter.pk).update(body=b"", forgotten_at=clock.now())
        letter.refresh_from_db()
        with pytest.raises(
            dead_letters.NotReplayable, match=r"was removed on .* publish the event"
        ):
            dead_letters.replay(letter, by="ada")
        output = StringIO()
        with pytest.raises(CommandError):
            call_command("replay_dead_letters", str(letter.pk), stderr=output)
        assert "what came was removed on" in output.getvalue()

    def test_the_admin_says_for_how_long_it_waits(self, admin_client: Client) -> None:
        letter = a_dead_letter()
        aged(letter, 40)
        for url in (listing(DeadLetter), page(letter)):
            assert "1\xa0month" in text(admin_client.get(url))

    def test_the_admin_says_that_what_came_was_removed(self, admin_client: Client) -> None:
        letter = a_dead_letter()
        dead_letters.discard(letter, by="ada", why="a test")
        aged(letter, 91)
        retention.forget_dead_letters()
        assert f"removed on {clock.now():%Y-%m-%d}" in text(admin_client.get(page(letter)))
