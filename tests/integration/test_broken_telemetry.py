"""The laws of consumers and of leased attempts, with metrics or logs broken in each way.

What only tells may be lost then. What is done stays the same: once, and under its own name.
"""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.db import OperationalError
from django.test import Client

from booking_platform.contract.envelope import Event
from booking_platform.development.mail_server import CLOSE, MESSAGE, MailServer
from booking_platform.development.stripe_sandbox import Sandbox
from booking_platform.messaging import dead_letters, inbox, leases, retention
from booking_platform.messaging.groups import Delivery
from booking_platform.messaging.leases import Conclusion
from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from booking_platform.messaging.rules import Consumer, LostRace, Result
from booking_platform.messaging.tasks import record_dead_letters
from notifications.models import CancellationEmail
from payments.models import Refund
from tests import emails
from tests.events import body, created, deliveries
from tests.factories import EmailFactory, RefundFactory, past
from tests.integration import refunds
from tests.integration.test_webhooks import event as webhook
from tests.integration.test_webhooks import signature
from tests.platform import parked
from tests.subjects import Subject
from tests.telemetry import UnprintableError

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]


@pytest.mark.usefixtures("broken_telemetry")
class TestConsumers:
    def test_an_event_is_applied_once(self, consumer: Consumer, subject: Subject) -> None:
        event = subject.event(event_id="once")
        inbox.process(consumer, deliveries(event, event))
        inbox.process(consumer, deliveries(event))
        assert subject.effects() == 1
        assert ProcessedEvent.objects.count() == 1
        assert parked() == []

    def test_what_is_refused_is_parked_for_its_reason(
        self, consumer: Consumer, subject: Subject
    ) -> None:
        inbox.process(consumer, deliveries(subject.refused(event_id="no"), subject.event("A")))
        assert parked() == [(subject.refusal, "no")]
        assert subject.effects() == 1

    def test_a_bug_parks_the_event_that_causes_it_and_no_other(
        self, consumer: Consumer, subject: Subject
    ) -> None:
        def bug(event: Event) -> None:
            if event.event_id == "bad":
                raise UnprintableError

        group = deliveries(subject.event("bad", event_id="bad"), subject.event("A"))
        inbox.process(_after(bug, consumer), group)
        assert parked() == [("bug", "bad")]
        assert subject.effects() == 1

    def test_what_is_lost_or_away_is_tried_again(
        self, consumer: Consumer, subject: Subject, settings: Any
    ) -> None:
        settings.LOCK_BASE_SECONDS = settings.OUTAGE_BASE_SECONDS = 0.001
        away = sqlite3.OperationalError("disk I/O error")
        away.sqlite_errorcode = sqlite3.SQLITE_IOERR
        outage = OperationalError("disk I/O error")
        outage.__cause__ = away
        # A rule of somebody else's may give a race any context: the line about it has the same names.
        race = LostRace("tour", tour_id=1, event="it", consumer="me", attempt=7, exc_info=True)
        errors = iter([race, outage])

        def unlucky(event: Event) -> None:
            if error := next(errors, None):
                raise error

        inbox.process(_after(unlucky, consumer), deliveries(subject.event()))
        assert subject.effects() == 1
        assert parked() == []


def _after(first: Callable[[Event], object], consumer: Consumer) -> Consumer:
    """Return a consumer whose rule does something first for each event."""

    def rule(events: Sequence[Event], *, lock: bool) -> Sequence[Result]:
        for event in events:
            first(event)
        return consumer.rule(events, lock=lock)

    return replace(consumer, rule=rule)


@pytest.mark.usefixtures("broken_telemetry")
class TestAttempts:
    def test_a_refund_is_paid_once_and_completed(self, stripe: Sandbox, payment: str) -> None:
        refunds.cancel("BK-1", payment)
        refunds.sweep_until_quiet()
        assert len(stripe.refunds) == 1
        assert (refunds.only().status, refunds.only().needs_review) == ("completed", False)
        assert parked() == []

    @pytest.mark.parametrize("fault", ["garbage", "drop_after"])
    def test_an_answer_that_can_not_be_read_is_looked_for(
        self, stripe: Sandbox, payment: str, fault: str
    ) -> None:
        stripe.fail(fault)
        refunds.cancel("BK-1", payment)
        refunds.sweep_until_quiet()
        assert len(stripe.refunds) == 1
        assert refunds.only().status == "completed"

    @pytest.mark.parametrize("uncertain", ["ask", "resend"])
    def test_a_mail_is_sent_once(
        self, mail_server: MailServer, settings: Any, uncertain: str
    ) -> None:
        settings.EMAIL_UNCERTAIN = uncertain
        emails.cancel()
        emails.sweep()
        assert len(mail_server.received()) == 1
        assert (emails.only().state, emails.only().unanswered) == ("sent", 0)

    def test_a_mail_without_an_answer_is_uncertain(self, mail_server: MailServer) -> None:
        mail_server.fail(MESSAGE, CLOSE)
        emails.cancel()
        emails.sweep()
        assert (emails.only().state, emails.only().unanswered) == ("uncertain", 1)

    def test_each_mail_of_a_lost_worker_is_concluded(self) -> None:
        for _ in range(2):
            EmailFactory.create(state="sending", attempts=1, lease_until=past())
        emails.sweep()
        assert set(CancellationEmail.objects.values_list("state", flat=True)) == {"uncertain"}


@pytest.mark.usefixtures("broken_telemetry")
class TestMaintenance:
    def test_what_the_broker_gave_up_on_is_recorded_once(self) -> None:
        queue = "tour-catalog.booking-created"
        event = body(created(1, "B", event_id="poison"))
        record_dead_letters([Delivery(event, routing_key=queue, died_of="rejected")])
        assert (DeadLetter.objects.get().event_id, DeadLetter.objects.get().attempts) == (
            "poison",
            1,
        )

    def test_the_cleanup_ends(self) -> None:
        assert retention.forget_processed_events() == 0


@pytest.mark.usefixtures("broken_telemetry")
class TestTheWebProcess:
    def test_a_page_is_shown(self, admin_client: Client) -> None:
        assert admin_client.get("/admin/").status_code == 200

    def test_a_webhook_is_taken(self, settings: Any) -> None:
        settings.STRIPE_WEBHOOK_SECRET = "whsec_test"
        refund = RefundFactory.create(payment_id="pi_1")
        signed = {"Stripe-Signature": signature(webhook())}
        kind = "application/json"
        answer = Client().post("/webhooks/stripe/", webhook(), content_type=kind, headers=signed)
        assert answer.status_code == 200
        refund.refresh_from_db()
        assert refund.next_attempt_at is not None

    def test_the_metrics_are_shown(self, client: Client) -> None:
        assert client.get("/metrics").status_code == 200


class TestTelling:
    """Bugs in what tells: no fault of a disk, but of ours."""

    def test_one_after_the_commit_changes_nothing(
        self, consumer: Consumer, subject: Subject, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(inbox, "_tell", _bug)
        event = subject.event()
        inbox.process(consumer, deliveries(event, event))
        assert subject.effects() == 1
        assert parked() == []

    def test_the_time_limit_of_a_worker_undoes_nothing_that_is_committed(
        self, consumer: Consumer, subject: Subject, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def ended(*_: object) -> None:
            raise SoftTimeLimitExceeded

        monkeypatch.setattr(inbox, "_tell", ended)
        inbox.process(consumer, deliveries(subject.event()))
        assert subject.effects() == 1

    def test_one_after_dead_letters_are_stored_changes_nothing(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dead_letters, "tell", _bug)
        record_dead_letters([Delivery(b"?")])
        assert DeadLetter.objects.count() == 1

    def test_one_after_a_conclusion_is_stored_changes_nothing(self) -> None:
        refund = RefundFactory.create(next_attempt_at=past())
        concluded = Conclusion({"last_error": "stored", "next_attempt_at": None}, tell=_bug)
        leases.take_up(Refund.objects.all(), lambda _: concluded)
        refund.refresh_from_db()
        assert (refund.last_error, refund.lease_until) == ("stored", None)

    def test_one_is_logged_once(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def other_bug(*_: object) -> None:
            raise KeyError("a bug of this test alone")

        monkeypatch.setattr(dead_letters, "tell", other_bug)
        for _ in range(3):
            record_dead_letters([Delivery(b"?")])
        assert caplog.text.count("What was done could not be told") == 1


def _bug(*_: object) -> None:
    raise KeyError("a bug in what tells")
