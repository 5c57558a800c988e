"""How PostgreSQL finds rows in large tables: by an index, in every statement that events take."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import psycopg
import pytest
from django.db import connection

from bench.growth_rows import fill
from booking_platform.development.stripe_sandbox import Sandbox
from booking_platform.messaging import clock, inbox, leases, outbox
from booking_platform.messaging.rules import CONSUMERS
from booking_platform.operations import tallies
from notifications.models import CancellationEmail
from payments.models import Refund
from tests.events import cancelled, changed, created, deliveries

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite plans in its own way"),
]

# So many that PostgreSQL would be wrong to read a table from one end to the other for a group of events.
EVENTS, TOURS = 100_000, 500
LARGE = {
    "processed_events", "reservations", "seat_changes", "outbox", "idempotency_store",
    "cancellation_emails",
}  # fmt: skip
CREATED, CANCELLED, CHANGED = (
    f"tour-catalog.booking-{what}" for what in ("created", "cancelled", "changed")
)
REFUNDS, EMAILS = (f"{app}.booking-cancelled" for app in ("payment-gateway", "notification"))


class Statements:
    """The statements of a block, and how PostgreSQL carries each of them out."""

    def __init__(self) -> None:
        self.plans: dict[str, Any] = {}

    def __call__(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        if isinstance(sql, str) and sql.startswith(
            ("SELECT", "WITH", "INSERT", "UPDATE", "DELETE")
        ):
            execute(f"EXPLAIN (FORMAT JSON) {sql}", params, many, context)
            [[plan]] = context["cursor"].fetchall()
            self.plans[sql] = (
                plan[0]["Plan"] if isinstance(plan, list) else json.loads(plan)[0]["Plan"]
            )
        return execute(sql, params, many, context)

    def scans(self) -> set[tuple[str, str]]:
        """Return which large tables are read from one end to the other, and in which statements."""
        return {
            (node["Relation Name"], sql)
            for sql, plan in self.plans.items()
            for node in _nodes(plan)
            if node["Node Type"].endswith("Seq Scan") and node["Relation Name"] in LARGE
        }


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)


@pytest.fixture
def _months_of_rows() -> None:
    settings = connection.get_connection_params()
    names = ("host", "port", "user", "password", "dbname")
    of_psycopg = {name: settings[name] for name in names if settings.get(name)}
    with psycopg.connect(**of_psycopg, autocommit=True) as filling:
        list(fill(filling, events=EVENTS, tours=TOURS))


def apply(queue: str, events: Iterable[dict[str, Any]]) -> None:
    """Have a consumer apply events, and then once more, when they are duplicates."""
    group = deliveries(*events)
    for _ in range(2):
        inbox.process(CONSUMERS[queue], group)


def bookings(count: int, first: int = 1) -> Sequence[str]:
    return [f"BK-{1_000_000_000 + first + 3 * number}" for number in range(count)]


@pytest.mark.usefixtures("_months_of_rows")
def test_no_statement_of_events_reads_a_large_table_from_one_end_to_the_other(
    stripe: Sandbox,
) -> None:
    known = {booking: 1 + (1 + 3 * n) * 7919 % TOURS for n, booking in enumerate(bookings(200))}
    statements = Statements()
    with connection.execute_wrapper(statements):
        apply(CREATED, (created(1 + n, f"BK-{n}") for n in range(200)))
        apply(CREATED, [created(1, "BK-one")])
        apply(CHANGED, (changed(tour, each, 2, revision=1) for each, tour in known.items()))
        apply(CANCELLED, (cancelled(tour, each, 2) for each, tour in known.items()))
        apply(
            REFUNDS,
            (cancelled(1, f"BK-{n}", paymentId=f"pi_{n}", amount=10) for n in range(2)),
        )
        apply(
            EMAILS,
            (
                cancelled(1, f"BK-{n}", userEmail="ann@example.org", tourName="Louvre")
                for n in range(2)
            ),
        )
        outbox.waits()
        outbox.lag()
        tallies.count_outcomes()
        for model in (Refund, CancellationEmail):
            list(leases.due(model.objects.all(), clock.now()))
            leases.conclude_lost(model, lambda row, now: pytest.fail("none is lost"))
    assert len(statements.plans) > 20
    assert statements.scans() == set()
