"""Which ids a log line has: those of the work that it was written in, whoever writes it, and no others."""

import io
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import structlog
from celery import shared_task
from django.test import Client
from structlog.contextvars import get_contextvars

from booking_platform.contract.envelope import Event
from booking_platform.contract.events import BookingCreated
from booking_platform.development.mail_server import MailServer
from booking_platform.development.stripe_sandbox import Sandbox
from booking_platform.messaging import bound, inbox
from booking_platform.messaging.rules import CONSUMERS, Result
from catalog.models import Tour
from tests import emails
from tests.events import created, deliveries
from tests.integration import refunds
from tests.integration.admin_pages import CREATED
from tests.platform import parked

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick")]

log = structlog.get_logger("ours")
library = logging.getLogger("a.library")


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    from tests.telemetry import log_in_form

    with log_in_form(json=True) as written:
        yield written


def said(lines: io.StringIO, event: str = "") -> list[dict[str, Any]]:
    """Return the lines, or those that begin with some words."""
    every = [json.loads(line) for line in lines.getvalue().splitlines()]
    return [line for line in every if line["event"].startswith(event)]


def ids(line: dict[str, Any], *names: str) -> list[Any]:
    return [line.get(name) for name in names]


@shared_task
def talking(inner: bool = False) -> None:
    log.info("Ours")
    library.warning("Theirs")
    if inner:
        talking.apply(task_id="inner")
        log.info("Ours again")


@shared_task
def failing() -> None:
    raise ValueError("of the test")


class TestATask:
    def test_each_line_within_it_names_it(self, lines: io.StringIO) -> None:
        talking.apply(task_id="T-1")
        log.info("Afterwards")
        [ours, theirs, after] = said(lines)
        for line in (ours, theirs):
            assert ids(line, "task", "task_id") == [talking.name, "T-1"]
        assert ids(after, "task", "task_id") == [None, None]

    def test_a_task_within_it_is_told_apart(self, lines: io.StringIO) -> None:
        talking.apply((True,), task_id="outer")
        tasks = [line["task_id"] for line in said(lines)]
        assert tasks == ["outer", "outer", "inner", "inner", "outer"]

    def test_celerys_line_of_its_failure_names_it(self, lines: io.StringIO) -> None:
        failing.apply(task_id="T-2")
        [line] = said(lines, "Task ")
        assert ids(line, "task", "task_id") == [failing.name, "T-2"]

    def test_what_another_has_left_behind_is_dropped(self) -> None:
        """A thread of a pool does one task after another."""

        class Request:
            is_eager = False

        class Task:
            name, request = "a.task", Request()

        task: Any = Task()
        structlog.contextvars.bind_contextvars(event_id="of another")
        bound.begin_task(task=task, task_id="T-3", sender=task)
        assert get_contextvars() == {"task": "a.task", "task_id": "T-3"}
        bound.end_task(task=task, sender=task)
        assert get_contextvars() == {}

    def test_the_end_of_one_that_never_began_is_no_error(self) -> None:
        class Task:
            request = object()

        bound.end_task(task=Task())


class TestAGroup:
    def talkative(self) -> Any:
        consumer = CONSUMERS[CREATED]

        def rule(events: Sequence[Event], *, lock: bool) -> Sequence[Result]:
            library.warning("In the rule")
            return consumer.rule(events, lock=lock)

        return replace(consumer, rule=rule)

    def test_each_line_names_its_consumer_and_size(self, lines: io.StringIO, tour: Tour) -> None:
        events = [created(tour.pk, booking) for booking in ("A", "B")]
        inbox.process(self.talkative(), deliveries(*events))
        log.info("Afterwards")
        [*within, after] = said(lines)
        assert {line["event"] for line in within} == {"In the rule", "Applied"}
        for line in within:
            assert ids(line, "consumer", "group_size", "event_id") == [CREATED, 2, None]
        assert ids(after, "consumer", "group_size") == [None, None]

    def test_where_there_is_one_event_each_line_names_it(
        self, lines: io.StringIO, tour: Tour
    ) -> None:
        inbox.process(self.talkative(), deliveries(created(tour.pk, "A", event_id="E-1")))
        assert len(said(lines)) == 2
        for line in said(lines):
            assert ids(line, "event_id", "aggregate_id", "group_size") == ["E-1", "A", 1]

    def test_a_payload_that_can_not_say_what_it_is_about_is_parked(self, tour: Tour) -> None:
        """The bug of an app: its event must not come again for ever."""

        class Silent(BookingCreated, frozen=True, kw_only=True):
            @property
            def aggregate_id(self) -> str:
                raise RuntimeError("a bug")

        consumer = replace(CONSUMERS[CREATED], payload=Silent)
        event = created(tour.pk, "A", event_id="E-1") | {"eventType": "Silent"}
        inbox.process(consumer, deliveries(event))
        assert parked() == [("bug", "E-1")]

    def test_a_line_of_a_duplicate_names_that_one(self, lines: io.StringIO, tour: Tour) -> None:
        first = created(tour.pk, "A", event_id="E-1")
        consumer = CONSUMERS[CREATED]
        inbox.process(consumer, deliveries(first))
        inbox.process(consumer, deliveries(first, created(tour.pk, "B", event_id="E-2")))
        [line] = said(lines, "Duplicate")
        assert ids(line, "event_id", "aggregate_id") == ["E-1", "A"]


class TestAnAttempt:
    def test_a_refund_names_its_event_and_booking(
        self, lines: io.StringIO, stripe: Sandbox, payment: str
    ) -> None:
        refunds.cancel("BK-7", payment)
        refund = refunds.only()
        [line] = said(lines, "Refund completed")
        assert ids(line, "event_id", "booking_id", "what", "pk") == [
            refund.event_id, "BK-7", "idempotency_store", refund.pk,
        ]  # fmt: skip
        assert get_contextvars() == {}

    def test_a_mail_names_its_event_and_booking(
        self, lines: io.StringIO, mail_server: MailServer
    ) -> None:
        emails.cancel()
        mail = emails.only()
        line = said(lines, "E-mail")[-1]
        assert ids(line, "event_id", "booking_id") == [mail.event_id, mail.booking_id]


class TestARequest:
    def test_each_line_of_it_has_an_id_of_its_own(self, lines: io.StringIO) -> None:
        Client().get("/nothing/")
        Client().get("/nothing/")
        log.info("Afterwards")
        first, second = (line["request_id"] for line in said(lines, "Not Found"))
        assert len(first) == len(second) == 32
        assert first != second
        [after] = said(lines, "Afterwards")
        assert "request_id" not in after

    def test_that_of_a_proxy_is_taken_over(self, lines: io.StringIO) -> None:
        answer = Client().get("/nothing/", headers={"X-Request-ID": "abc-1.2_3"})
        assert answer["X-Request-ID"] == "abc-1.2_3"
        assert said(lines, "Not Found")[0]["request_id"] == "abc-1.2_3"

    @pytest.mark.parametrize("given", ["", "a b", "a\nb", "x" * 65, "anna@example.com", "é"])
    def test_what_is_none_is_replaced(self, lines: io.StringIO, given: str) -> None:
        answer = Client().get("/nothing/", headers={"X-Request-ID": given})
        assert "X-Request-ID" not in answer
        assert len(said(lines, "Not Found")[0]["request_id"]) == 32
