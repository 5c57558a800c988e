"""The day of bookings that ``manage.py sample_data`` makes."""

from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from booking_platform.operations import auditing
from catalog.models import Reservation, SeatChange, Tour
from notifications.models import CancellationEmail
from payments.models import Refund

pytestmark = pytest.mark.django_db(transaction=True)


def tour_history(tour: int) -> Any:
    """Return when the seats of a tour changed, from its first version on."""
    changes = SeatChange.objects.filter(tour_id=tour).order_by("version")
    return changes.values_list("changed_at", flat=True)


@pytest.fixture
def _settings_stay(settings: Any) -> None:
    """Have what the command sets put back: by itself it is alone in its process."""
    for name in ("STRIPE_API_BASE", "SMTP_HOST", "SMTP_PORT", "SMTP_SECURITY"):
        setattr(settings, name, getattr(settings, name))


@pytest.mark.usefixtures("_settings_stay")
def test_it_has_every_kind_of_trouble_and_breaks_no_promise() -> None:
    out = StringIO()
    call_command("sample_data", bookings=600, database_is_for_this=True, stdout=out)
    assert "processed events" in out.getvalue()
    assert set(Reservation.objects.values_list("state", flat=True)) >= {
        "reserved",
        "rejected",
        "released",
    }
    assert {"malformed", "invalid"} <= set(DeadLetter.objects.values_list("reason", flat=True))
    assert Refund.objects.filter(status="completed").exists()
    assert CancellationEmail.objects.filter(state="failed").exists()
    oldest = ProcessedEvent.objects.order_by("processed_at").values_list("processed_at", flat=True)[
        0
    ]
    assert timezone.now() - oldest > timedelta(hours=20)
    assert not Tour.objects.filter(created_at__gt=oldest).exists()
    for tour in Tour.objects.all():
        times = list(tour_history(tour.pk))
        assert times == sorted(times)
    assert not Refund.objects.exclude(payment_id__startswith="pi_sandbox_").exclude(
        payment_id__startswith="pi_mistyped_"
    )
    broken: list[str] = []
    auditing.run(tell=lambda audit, finding: broken.append(f"{audit.name}: {finding}"))
    assert [found for found in broken if not found.startswith("overdue")] == []


def test_it_does_not_write_into_a_database_that_somebody_needs() -> None:
    with pytest.raises(CommandError, match="database-is-for-this"):
        call_command("sample_data")
    with pytest.raises(CommandError, match="--bookings is 0"):
        call_command("sample_data", bookings=0, database_is_for_this=True)
