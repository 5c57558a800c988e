"""Migrations of a database that has data in it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import IntegrityError, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from booking_platform.messaging.rows import insert_missing
from payments.models import Refund

pytestmark = pytest.mark.django_db(transaction=True)

Migrate = Callable[..., Any]


@pytest.fixture
def migrate() -> Iterator[Migrate]:
    """Migrate apps to what is named, and return the models as they are then; in the end, all."""

    def to(*targets: tuple[str, str]) -> Any:
        executor = MigrationExecutor(connection)
        return executor.migrate(list(targets)).apps

    yield to
    call_command("migrate", verbosity=0)


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite copies the table")
def test_workers_do_not_wait_while_their_table_is_read() -> None:
    """A check would have PostgreSQL read all events; an index of another table would keep them waiting."""
    loader = MigrationExecutor(connection).loader
    altered = 0
    for app, name in sorted(loader.graph.nodes):
        if app != "messaging" or name < "0009":
            continue
        sql = "\n".join(loader.collect_sql([(loader.graph.nodes[app, name], False)]))
        if 'ALTER TABLE "processed_events"' in sql:
            altered += 1
            alterations = [line for line in sql.splitlines() if "processed_events" in line]
            assert not [line for line in alterations if "CHECK" in line]
            assert 'ON "dead_letters"' not in sql
    assert altered


@pytest.mark.servers
def test_what_is_announced_is_compressed_at_little_cost() -> None:
    compression = (
        "SELECT attcompression FROM pg_attribute"
        " WHERE attrelid = 'outbox'::regclass AND attname = 'messages'"
    )
    able = "SELECT 'lz4' = ANY(enumvals) FROM pg_settings WHERE name = 'default_toast_compression'"
    with connection.cursor() as cursor:
        cursor.execute(able)
        [can] = cursor.fetchone()
        cursor.execute(compression)
        assert cursor.fetchone() == ("l" if can else "",)


class TestRefunds:
    def test_whoever_asked_for_nothing_is_remembered_apart(self, migrate: Migrate) -> None:
        old = migrate(("payments", "0001_initial"), ("messaging", "0002_alter_deadletter_reason"))
        events = old.get_model("messaging", "ProcessedEvent").objects
        for number, (booking, outcome, consumer) in enumerate(
            [
                ("free", "nothing_to_refund", "payment-gateway.booking-cancelled"),
                ("free", "nothing_to_refund", "payment-gateway.booking-cancelled"),
                ("paid", "refund_requested", "payment-gateway.booking-cancelled"),
                ("other", "nothing_to_refund", "another.queue"),
            ]
        ):
            events.create(
                event_id=f"e{number}", consumer=consumer, aggregate_id=booking, outcome=outcome,
                processed_at=timezone.now(),
            )  # fmt: skip
        new = migrate(("payments", "0002_refund"))
        nothing = new.get_model("payments", "NothingToRefund").objects
        assert list(nothing.values_list("booking_id", flat=True)) == ["free"]

    def test_refunds_and_the_right_to_see_them_stay(self, migrate: Migrate) -> None:
        old = migrate(("payments", "0001_initial"))
        kind, _ = ContentType.objects.get_or_create(app_label="payments", model="idempotencystore")
        Permission.objects.filter(codename="view_refund").delete()
        Permission.objects.get_or_create(codename="view_idempotencystore", content_type=kind)
        old.get_model("payments", "IdempotencyStore").objects.create(
            booking_id="BK-1", payment_id="pi_1", amount_minor=100, currency="eur",
            idempotency_key="key", request_payload={},
        )  # fmt: skip
        new = migrate(("payments", "0002_refund"))
        assert new.get_model("payments", "Refund").objects.get().booking_id == "BK-1"
        assert Permission.objects.filter(codename="view_refund").exists()
        assert not Permission.objects.filter(codename="view_idempotencystore").exists()

    def test_refunds_of_the_version_before_are_of_the_whole_booking(self, migrate: Migrate) -> None:
        old = migrate(("payments", "0002_refund"))
        columns = {"payment_id": "pi_1", "amount_minor": 100, "currency": "eur"}
        refunds = old.get_model("payments", "Refund").objects
        for number, status in enumerate(("", "pending", "succeeded")):
            refunds.create(
                booking_id=f"BK-{number}", idempotency_key=str(number), request_payload={"a": 1},
                status="completed" if status else "in_progress", stripe_status=status,
                stripe_refund_id=f"re_{number}", **columns,
            )  # fmt: skip
        old.get_model("payments", "NothingToRefund").objects.create(booking_id="BK-9")
        new = migrate(("payments", "0003_steps"))
        row = new.get_model("payments", "Refund").objects.get(booking_id="BK-1")
        assert (row.seats_remaining, row.step_named, row.further_payment) == (0, False, False)
        assert (row.amount_minor, row.currency, row.amount_asked) == (100, "eur", None)
        assert (row.review_code, row.approved_codes, row.cancelled_at) == ("", "", None)
        assert row.request_payload == {"a": 1}
        due = new.get_model("payments", "Refund").objects.exclude(next_attempt_at=None)
        assert list(due.values_list("booking_id", flat=True)) == ["BK-1"]  # which is pending
        nothing = new.get_model("payments", "NothingToRefund").objects.get()
        assert (nothing.seats_remaining, nothing.step_named) == (0, False)

    def test_a_worker_of_the_version_before_stores_what_it_knows(self, migrate: Migrate) -> None:
        """It names none of the new columns, and relies on that a booking has one row of its own."""
        old = migrate(("payments", "0002_refund"))
        migrate(("payments", "0005_trace"))
        columns = {
            "booking_id": "BK-1", "payment_id": "pi_1", "amount_minor": 100, "currency": "eur",
            "idempotency_key": "key", "request_payload": {}, "status": "in_progress",
            "created_at": timezone.now(), "updated_at": timezone.now(), "attempts": 1,
        }  # fmt: skip
        assert insert_missing(old.get_model("payments", "Refund"), [columns], key="id")
        assert not insert_missing(old.get_model("payments", "Refund"), [columns], key="id")
        row = Refund.objects.get()
        assert (row.seats_remaining, row.step_named, row.review_code) == (0, False, "")
        assert (row.announced, row.event_id, row.trace) == (0, "", "")
        nothing = {"booking_id": "BK-2", "event_id": "e", "created_at": timezone.now()}
        model = old.get_model("payments", "NothingToRefund")
        assert insert_missing(model, [nothing], key="booking_id")
        assert not insert_missing(model, [nothing], key="booking_id")


class TestCancellationEmails:
    def test_mails_of_before_are_of_the_whole_booking(self, migrate: Migrate) -> None:
        old = migrate(("notifications", "0001_initial"))
        old.get_model("notifications", "CancellationEmail").objects.create(
            booking_id="BK-1", recipient="ann@example.com", locale="fr", message_id="<1@x>"
        )
        mails = migrate(("notifications", "0002_steps")).get_model(
            "notifications", "CancellationEmail"
        )
        kept = mails.objects.values_list("booking_id", "seats_remaining", "step_named", "recipient")
        assert list(kept) == [("BK-1", 0, False, "ann@example.com")]
        step = {"booking_id": "BK-1", "seats_remaining": 2, "recipient": "ann@example.com"}
        mails.objects.create(**step, locale="fr", message_id="<2@x>")
        with pytest.raises(IntegrityError):
            mails.objects.create(**step, locale="fr", message_id="<3@x>")
