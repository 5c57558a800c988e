"""A real worker whose spans are asked for, and a collector that hears of them, or does not."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from booking_platform.development.mail_server import MailServer
from booking_platform.development.stripe_sandbox import Sandbox
from booking_platform.messaging.models import OutboxRow, ProcessedEvent
from catalog.models import Tour
from notifications.models import CancellationEmail
from payments.models import Refund
from tests import collector as collectors
from tests.collector import CLIENT, CONSUMER, PRODUCER, Collector, Received
from tests.events import cancelled, created
from tests.platform import Platform, assert_adds_up, parked

ANN = "ann.durand@example.com"
CREATED = "tour-catalog.booking-created"
LATER = "3600000"  # milliseconds: only what a process sends at its end arrives


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collectors.running() as collector:
        yield collector


@pytest.fixture
def whole(platform: Platform, stripe: Sandbox, mail_server: MailServer) -> Platform:
    platform.environment |= {
        "STRIPE_API_BASE": stripe.url,
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": str(mail_server.port),
    }
    return platform


def headers(number: int) -> dict[str, str]:
    return {"traceparent": f"00-{number:032x}-{number:016x}-01", "tracestate": "shop=1"}


def children(collector: Collector, number: int) -> list[Received]:
    """Return the spans whose parent is the context with which an event came."""
    return [
        span
        for span in collector.spans
        if (span.trace_id, span.parent_id) == (f"{number:032x}", f"{number:016x}")
    ]


class TestSpans:
    def test_a_worker_tells_of_groups_events_attempts_and_what_it_publishes(
        self, whole: Platform, collector: Collector, stripe: Sandbox, tour: Tour
    ) -> None:
        whole.environment |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": LATER,
        }
        worker = whole.start("-c", "2")
        whole.publish([created(tour.pk, "BK-1", event_id="one")], headers=headers(1))
        whole.wait_for_processed(1)
        end = cancelled(
            tour.pk,
            "BK-1",
            userEmail=ANN,
            tourName="Louvre at night",
            paymentId=stripe.payment(amount=15_000, currency="eur"),
            amount=150,
        )
        whole.publish([end], key="booking.cancelled", headers=headers(2))
        whole.wait_for(at_rest, "all is done and announced")
        assert worker.stop() == 0

        [event] = children(collector, 1)
        assert (event.kind, event.failed, event.state) == (CONSUMER, False, "shop=1")
        assert event.attributes["messaging.system"] == "rabbitmq"
        assert event.attributes["messaging.operation.type"] == "process"
        assert event.attributes["messaging.message.id"] == "one"
        assert event.attributes["booking_platform.outcome"] == "reserved"
        name = f"booking-events:booking.created:{CREATED}"
        assert event.attributes["messaging.destination.name"] == name
        assert event.service == "booking-platform"
        groups = [each for each in collector.of_kind(CONSUMER, f"process {name}") if each.links]
        assert [group.links for group in groups] == [[(f"{1:032x}", f"{1:016x}")]]
        assert groups[0].attributes["messaging.batch.message_count"] == 1

        cancellations = children(collector, 2)
        assert {each.attributes["booking_platform.outcome"] for each in cancellations} == {
            "released",
            "refund_requested",
            "email_requested",
        }
        attempts = collector.of_kind(CLIENT)
        assert {each.name for each in attempts} == {
            "attempt payments.Refund",
            "attempt notifications.CancellationEmail",
        }
        assert {each.parent_id for each in attempts} < {each.span_id for each in cancellations}
        assert {each.attributes["booking_platform.attempt"] for each in attempts} == {1}

        sent = collector.of_kind(PRODUCER, "send booking-events")
        links = {link for each in sent for link in each.links}
        assert (event.trace_id, event.span_id) in links
        assert announced_in(f"00-{event.trace_id}-{event.span_id}-01 shop=1")
        for private in (ANN, "ann.durand", "Louvre", "BK-1"):
            assert private.encode() not in collector.raw

    def test_a_large_group_has_spans_of_some_of_its_events_and_traces_of_all(
        self, platform: Platform, collector: Collector, tour: Tour
    ) -> None:
        for number in range(1, 151):
            platform.publish([created(tour.pk, f"B{number}")], headers=headers(number))
        platform.environment |= {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        }
        worker = platform.start("-c", "1", "-Q", "catalog")
        platform.wait_for_processed(150)
        assert worker.stop() == 0
        groups = [each for each in collector.of_kind(CONSUMER) if each.links]
        assert sum(each.attributes["messaging.batch.message_count"] for each in groups) == 150
        events = [each for each in collector.of_kind(CONSUMER) if not each.links]
        assert len(groups) <= len(events) <= 50 * len(groups)
        for number in range(1, 151):
            assert announced_in(f"00-{number:032x}-")

    def test_what_threads_have_told_is_sent_at_the_end_too(
        self, platform: Platform, collector: Collector, tour: Tour
    ) -> None:
        platform.environment |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": LATER,
            "OTEL_SERVICE_NAME": "tours",
        }
        worker = platform.start("-P", "threads", "-c", "2", "-Q", "catalog")
        platform.publish([created(tour.pk, "B")], headers=headers(1))
        platform.wait_for_processed(1)
        assert worker.stop() == 0
        [event] = children(collector, 1)
        assert event.service == "tours"

    def test_what_is_parked_is_told_as_failed(
        self, platform: Platform, collector: Collector
    ) -> None:
        worker = platform.start(
            "-c", "1", "-Q", "catalog", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url
        )
        platform.publish([created(4242, "B")], headers=headers(1))
        platform.wait_for(parked, "the event is parked")
        assert worker.stop() == 0
        [event] = children(collector, 1)
        assert event.failed
        assert event.attributes["booking_platform.outcome"] == "parked"
        assert event.attributes["error.type"] == "unknown_tour"


class TestACollectorThatDoesNotAnswer:
    @pytest.mark.parametrize("way", ["nobody listens", "it hangs", "it fails"])
    def test_the_work_goes_on_and_the_worker_ends(
        self, platform: Platform, collector: Collector, tour: Tour, way: str
    ) -> None:
        never = threading.Event()
        url = "http://127.0.0.1:9" if way == "nobody listens" else collector.url
        collector.answer = (lambda: 200 * never.wait(120)) if way == "it hangs" else (lambda: 500)
        platform.environment |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_BSP_MAX_QUEUE_SIZE": "10",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "5",
        }
        worker = platform.start("-c", "2", "-Q", "catalog")
        platform.publish(created(tour.pk, f"B{n}") for n in range(500))
        platform.wait_for_processed(500)
        assert worker.stop() == 0
        never.set()
        assert_adds_up(tour)
        assert tour.reserved_seats == 500
        assert parked() == []
        assert worker.log.count("Spans can't be sent to the collector") <= 2  # once a process
        assert "Traceback" not in worker.log

    def test_nor_does_it_matter_what_opentelemetry_refuses(
        self, platform: Platform, collector: Collector, tour: Tour
    ) -> None:
        platform.environment |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_MAX_QUEUE_SIZE": "-1",
        }
        worker = platform.start("-c", "1", "-Q", "catalog")
        for number in range(1, 4):
            platform.publish([created(tour.pk, f"B{number}")], headers=headers(number))
            platform.wait_for_processed(number)
        assert worker.stop() == 0
        assert_adds_up(tour)
        assert tour.reserved_seats == 3
        assert worker.log.count("Spans can't be made") == 1
        for number in range(1, 4):
            assert announced_in(f"00-{number:032x}-{number:016x}-01 shop=1")


class TestNobodyAsks:
    @pytest.mark.parametrize(
        "asked",
        [
            {},
            {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
            {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"},
        ],
        ids=["nothing said", "none", "disabled"],
    )
    def test_opentelemetry_is_not_even_imported(self, asked: dict[str, str]) -> None:
        ended = _loaded(asked)
        assert ended.stdout.strip() == "[]", ended.stderr

    def test_it_is_where_somebody_asks(self) -> None:
        ended = _loaded({"OTEL_TRACES_EXPORTER": "otlp"})
        assert "'opentelemetry'" in ended.stdout, ended.stderr


def _loaded(asked: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Publish nothing in a span, and return which packages of OpenTelemetry are loaded then."""
    program = (
        "import sys\n"
        "from booking_platform.celery import app\n"
        "app.loader.import_default_modules()\n"
        "from booking_platform.messaging import tracing\n"
        "with tracing.sending([]): pass\n"
        "tracing.flush()\n"
        "print(sorted(name for name in sys.modules if name.partition('.')[0] == 'opentelemetry')[:1])"
    )
    return subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | asked,
        check=False,
        capture_output=True,
        text=True,
    )


def at_rest() -> bool:
    rows: list[Any] = [Refund.objects, CancellationEmail.objects]
    return (
        ProcessedEvent.objects.count() == 4
        and Refund.objects.filter(status="completed").exists()
        and CancellationEmail.objects.filter(state="sent").exists()
        and not any(each.exclude(lease_until=None).exists() for each in rows)
        and not OutboxRow.waiting().exists()
    )


def announced_in(trace: str) -> bool:
    """Whether something was announced in a trace, which is given from its beginning."""
    return OutboxRow.objects.filter(messages__contains=f'"{trace}').exists()
