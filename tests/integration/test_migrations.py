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
