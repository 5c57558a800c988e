"""What follows a commit: done before the ack, and unable to change what was committed."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.db import connection
from django.utils import timezone

from booking_platform.contract.envelope import Event
from booking_platform.messaging import inbox, leases, retention
from booking_platform.messaging.leases import Conclusion
from booking_platform.messaging.models import ProcessedEvent
from booking_platform.messaging.rules import CONSUMERS, Applied, Consumer, Result
from payments.models import NothingToRefund, Refund
from tests.events import cancelled, deliveries
from tests.factories import RefundFactory, past
from tests.platform import parked

pytestmark = pytest.mark.django_db(transaction=True)

PAYMENTS = "payment-gateway.booking-cancelled"


def followed_by(then: Callable[[Event], object]) -> Consumer:
    def rule(events: Sequence[Event], *, lock: bool) -> Sequence[Result]:
        return [Applied("refund_requested", then=partial(then, event)) for event in events]

    return replace(CONSUMERS[PAYMENTS], rule=rule)


class TestWhatFollows:
    def test_it_sees_the_commit_and_is_in_no_transaction(self) -> None:
        seen: list[tuple[int, bool]] = []

        def then(event: Event) -> None:
            seen.append((ProcessedEvent.objects.count(), connection.in_atomic_block))

        inbox.process(followed_by(then), deliveries(cancelled(1, "A"), cancelled(1, "B")))
        assert seen == [(2, False), (2, False)]

    @pytest.mark.parametrize("error", [KeyError("oh"), MemoryError(), SoftTimeLimitExceeded()])
    def test_an_error_there_is_logged_and_changes_nothing(
        self, error: Exception, caplog: pytest.LogCaptureFixture
    ) -> None:
        done: list[str] = []

        def then(event: Event) -> None:
            if event.payload.booking_id == "A":
                raise error
            done.append(event.payload.booking_id)

        inbox.process(followed_by(then), deliveries(cancelled(1, "A"), cancelled(1, "B")))
        assert done == ["B"]
        assert ProcessedEvent.objects.count() == 2
        assert parked() == []
        assert "What was to follow a commit failed" in caplog.text

    def test_nothing_follows_a_repeat(self) -> None:
        done: list[str] = []
        event = cancelled(1, "A")
        consumer = followed_by(lambda event: done.append(event.event_id))
        inbox.process(consumer, deliveries(event, event))
        inbox.process(consumer, deliveries(event))
        assert done == [event["eventId"]]


class TestAConclusion:
    def test_it_is_told_once_it_is_stored(self) -> None:
        told: list[str] = []

        def attempt(refund: Refund) -> Conclusion:
            columns = {"last_error": "stored"}
            return Conclusion(columns, tell=lambda: told.append(Refund.objects.get().last_error))

        RefundFactory.create(next_attempt_at=past())
        leases.take_up(Refund.objects.all(), attempt)
        assert told == ["stored"]

    def test_one_that_was_overtaken_is_not_told(self) -> None:
        told: list[str] = []

        def attempt(refund: Refund) -> Conclusion:
            Refund.objects.update(lease_token="8" * 32)
            return Conclusion({"last_error": "late"}, tell=lambda: told.append("late"))

        RefundFactory.create(next_attempt_at=past())
        leases.take_up(Refund.objects.all(), attempt)
        assert told == []
        assert Refund.objects.get().last_error == ""


class TestAskedForNothing:
    def cancel(self, **over: Any) -> None:
        inbox.process(CONSUMERS[PAYMENTS], deliveries(cancelled(1, "BK-1", **over)))

    def outcomes(self) -> list[str]:
        return list(ProcessedEvent.objects.order_by("pk").values_list("outcome", flat=True))

    def test_it_is_remembered_though_the_event_is_forgotten(self) -> None:
        """A cleanup forgot it before: money asked for a month later was paid out."""
        self.cancel()
        assert self.outcomes() == ["nothing_to_refund"]
        long_ago = timezone.now() - timedelta(days=100)
        ProcessedEvent.objects.update(processed_at=long_ago, occurred_at=long_ago)
        assert retention.forget_processed_events() == 1
        self.cancel(paymentId="pi_1", amount=150)
        assert [reason for reason, _ in parked()] == ["differs"]
        assert not Refund.objects.exists()

    def test_what_a_worker_of_the_version_before_remembers_counts(self) -> None:
        """During a deployment: it writes no row that lasts."""
        self.cancel()
        NothingToRefund.objects.all().delete()
        self.cancel(paymentId="pi_1", amount=150)
        assert [reason for reason, _ in parked()] == ["differs"]

    def test_the_same_again_is_known(self) -> None:
        self.cancel()
        self.cancel(paymentId="pi_1", amount=0)
        assert self.outcomes() == ["nothing_to_refund", "refund_known"]
        assert NothingToRefund.objects.count() == 1

    def test_nothing_asked_for_after_a_refund_is_parked(self) -> None:
        RefundFactory.create(booking_id="BK-1")
        self.cancel()
        assert [reason for reason, _ in parked()] == ["differs"]
        assert not NothingToRefund.objects.exists()
