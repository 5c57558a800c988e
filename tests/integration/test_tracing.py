"""The trace of an event in what it causes: what is announced, what is parked, and the rows of attempts."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from booking_platform.contract.announcing import Announced, EventParked, announced
from booking_platform.contract.trace_context import PARENT_LENGTH
from booking_platform.development.mail_server import MailServer
from booking_platform.development.stripe_sandbox import Sandbox
from booking_platform.messaging import dead_letters, inbox, leases
from booking_platform.messaging.groups import Delivery
from booking_platform.messaging.leases import Conclusion
from booking_platform.messaging.models import DeadLetter, OutboxRow
from booking_platform.messaging.rules import CONSUMERS
from booking_platform.messaging.tasks import record_dead_letters
from notifications import attempts
from notifications.models import CancellationEmail
from payments.models import Refund
from tests.emails import ANN
from tests.events import body, cancelled, created
from tests.factories import EmailFactory, RefundFactory, TourFactory
from tests.platform import Platform

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]

CREATED = "tour-catalog.booking-created"
REFUNDS, EMAILS = "payment-gateway.booking-cancelled", "notification.booking-cancelled"
STATE = "shop=1,b=2"


def trace(number: int = 1, state: str = "") -> str:
    parent = f"00-{number:032x}-{number:016x}-01"
    return f"{parent} {state}" if state else parent


def process(queue: str, *events: tuple[dict[str, Any] | bytes, str]) -> None:
    inbox.process(
        CONSUMERS[queue],
        [
            Delivery(event if isinstance(event, bytes) else body(event), trace=trace)
            for event, trace in events
        ],
    )


def announcements() -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield type, payload and trace of all that events have announced, in its order."""
    for text in OutboxRow.objects.order_by("pk").values_list("messages", flat=True):
        for _key, event, stored in json.loads(text):
            if event["payload"].get("version") != 0:  # of the tour that a test has made
                yield event["eventType"], event["payload"], stored


def traces() -> list[tuple[str, str]]:
    return [(event_type, stored) for event_type, _, stored in announcements()]


class TestAnnouncements:
    def test_each_has_the_trace_of_its_event(self) -> None:
        tour = TourFactory.create(capacity=2)
        process(
            CREATED,
            (created(tour.pk, "A"), trace(1, STATE)),
            (created(tour.pk, "B"), trace(2)),
            (created(tour.pk, "C"), trace(3)),
            (created(tour.pk, "D"), ""),
        )
        of_bookings = [
            (payload["bookingId"], stored)
            for event_type, payload, stored in announcements()
            if event_type != "TourAvailabilityChanged"
        ]
        assert of_bookings == [
            ("A", trace(1, STATE)),
            ("B", trace(2)),
            ("C", trace(3)),
            ("D", ""),
        ]

    def test_that_of_a_tour_has_the_trace_of_one_of_its_events(self) -> None:
        tour = TourFactory.create(capacity=9)
        process(CREATED, (created(tour.pk, "A"), trace(1)), (created(tour.pk, "B"), trace(2)))
        [of_tour] = [each for each in traces() if each[0] == "TourAvailabilityChanged"]
        assert of_tour[1] in (trace(1), trace(2))

    def test_a_cloud_event_names_its_trace_itself(self) -> None:
        event = created(TourFactory.create(capacity=9).pk, "A")
        attributes = {
            "specversion": "1.0",
            "id": "7",
            "source": "/shop",
            "type": "BookingCreated",
            "time": event["timestamp"],
            "traceparent": trace(5),
            "tracestate": STATE,
        }
        process(CREATED, (body(attributes | {"data": event["payload"]}), ""))
        assert {stored for _, stored in traces()} == {trace(5, STATE)}

    def test_a_repeat_in_another_trace_announces_nothing(self) -> None:
        event = created(TourFactory.create(capacity=9).pk, "A")
        process(CREATED, (event, trace(1)), (event, trace(2)))
        process(CREATED, (event, trace(3)))
        assert {stored for _, stored in traces()} == {trace(1)}


class TestWhatIsParked:
    @pytest.mark.parametrize("event", [created(4242, "A"), b"junk"], ids=["refused", "unread"])
    def test_its_announcement_has_its_trace(self, event: Any) -> None:
        process(CREATED, (event, trace(1, STATE)))
        assert traces() == [("EventParked", trace(1, STATE))]
        assert DeadLetter.objects.get().trace == trace(1)

    def test_it_has_the_trace_with_which_it_came_last(self) -> None:
        event = created(4242, "A")
        for number in (1, 2):
            process(CREATED, (event, trace(number)))
        assert DeadLetter.objects.get().trace == trace(2)

    def test_what_the_broker_gives_up_keeps_it(self) -> None:
        record_dead_letters([Delivery(body(created(1, "A")), routing_key=CREATED, trace=trace(4))])
        assert traces() == [("EventParked", trace(4))]

    def test_a_discarded_one_is_told_in_its_trace(self) -> None:
        process(CREATED, (created(4242, "A"), trace(1)))
        assert dead_letters.discard(DeadLetter.objects.get(), by="ada", why="a test")
        assert traces()[-1] == ("EventDiscarded", trace(1))

    def test_its_replay_is_applied_in_its_trace(self, platform: Platform) -> None:
        process(CREATED, (created(4242, "A"), trace(1, STATE)))
        TourFactory.create(pk=4242, capacity=9)
        assert dead_letters.replay(DeadLetter.objects.get(), by="ada")
        platform.start("-c", "1", "-Q", "catalog")
        platform.wait_for_processed(1)
        assert ("SeatsReserved", trace(1)) in traces()


class TestRowsOfAttempts:
    def test_a_refund_remembers_the_trace_of_its_event(self, stripe: Sandbox, payment: str) -> None:
        event = cancelled(1, "BK-1", paymentId=payment, amount=150.0)
        process(REFUNDS, (event, trace(1, STATE)))
        assert Refund.objects.get().trace == trace(1)

    def test_a_mail_remembers_the_trace_of_its_event(self, mail_server: MailServer) -> None:
        event = cancelled(1, "BK-1", userEmail=ANN, tourName="Louvre")
        process(EMAILS, (event, trace(2, STATE)))
        assert CancellationEmail.objects.get().trace == trace(2)

    @pytest.fixture
    def announcing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every change of a row is announced, whatever its app announces of it."""

        def told(row: leases.Leased, _columns: Any) -> list[Announced]:
            payload = EventParked(queue=str(row.pk), reason="a test")
            return [announced(payload, cause=str(row.pk), at=timezone.now())]

        for model in (Refund, CancellationEmail):
            monkeypatch.setattr(model, "announces", told)

    @pytest.mark.usefixtures("announcing")
    def test_what_is_announced_of_an_attempt_has_it(self) -> None:
        refund = RefundFactory.create(trace=trace(1), **leases.new_lease())
        leases.carry_on(refund, lambda _: Conclusion({"last_error": "a test"}))
        assert traces() == [("EventParked", trace(1))]

    @pytest.mark.usefixtures("announcing")
    def test_what_is_announced_of_a_decision_has_it(self) -> None:
        refund = RefundFactory.create(trace=trace(1), needs_review=True)
        assert refund.settle(by="ada", why="a test")
        assert traces() == [("EventParked", trace(1))]

    @pytest.mark.usefixtures("announcing")
    def test_what_is_announced_of_a_lost_worker_has_it(self) -> None:
        past = timezone.now() - timedelta(seconds=1)
        EmailFactory.create(trace=trace(1), state="sending", lease_until=past)
        assert leases.conclude_lost(CancellationEmail, attempts.lost) == 1
        assert traces() == [("EventParked", trace(1))]

    def test_the_column_has_room_for_every_trace(self) -> None:
        assert len(trace(2**128 - 1)) > PARENT_LENGTH - 1
        for model in (Refund, CancellationEmail, DeadLetter):
            assert model._meta.get_field("trace").max_length == PARENT_LENGTH


class TestWhatGoesOut:
    def test_headers_of_an_event_come_out_with_what_it_caused(self, platform: Platform) -> None:
        tour = TourFactory.create(capacity=1)
        parent, state = trace(7, STATE).split(" ")
        with platform.channel() as channel:
            name = channel.queue_declare("", exclusive=True).queue
            channel.queue_bind(name, "booking-events", "seats.reserved")
            platform.start("-c", "1", "-Q", "catalog")
            platform.publish(
                [created(tour.pk, "A")], headers={"traceparent": parent, "tracestate": state}
            )
            platform.wait_for_processed(1)
            headers: list[dict[str, Any]] = []

            def heard() -> bool:
                message = channel.basic_get(name, no_ack=True)
                if message is not None:
                    headers.append(dict(getattr(message, "headers", None) or {}))
                return bool(headers)

            platform.wait_for(heard, "the announcement")
        assert headers == [{"traceparent": parent, "tracestate": state}]
