"""What the laws of a consumer need to know of each consumer that is registered."""

from collections.abc import Callable
from typing import Any, Protocol
from zlib import crc32

from django.utils import timezone

from catalog.models import Reservation, Tour, TourAvailability
from notifications.models import CancellationEmail
from payments.models import Refund
from tests.events import availability, cancelled, changed, created
from tests.factories import EmailFactory, RefundFactory, TourFactory


class Subject(Protocol):
    refusal: str  # the reason for which `refused` is parked

    def event(self, booking: str = "B", **over: Any) -> dict[str, Any]:
        """Return an event that the consumer takes."""

    def effects(self) -> int:
        """Count the events that had an effect."""

    def refused(self, **over: Any) -> dict[str, Any]:
        """Return an event that the consumer's rule refuses."""

    def mend(self) -> None:
        """Change the database so that the refused event is acceptable."""


class BookingsCreated:
    refusal = "unknown_tour"
    make: Callable[..., dict[str, Any]] = staticmethod(created)

    def __init__(self) -> None:
        self.tour: Tour = TourFactory.create(capacity=100, available_seats=50)

    def event(self, booking: str = "B", **over: Any) -> dict[str, Any]:
        return self.make(self.tour.pk, booking, **over)

    def effects(self) -> int:
        self.tour.refresh_from_db()
        return abs(self.tour.available_seats - 50)

    def refused(self, **over: Any) -> dict[str, Any]:
        return self.make(4242, "refused", **over)

    def mend(self) -> None:
        TourFactory.create(pk=4242)


class BookingsCancelled(BookingsCreated):
    make = staticmethod(cancelled)


class BookingsChanged(BookingsCreated):
    """Changes of bookings whose creation has not arrived: remembered."""

    def event(self, booking: str = "B", **over: Any) -> dict[str, Any]:
        return changed(self.tour.pk, booking, 2, revision=1, **over)

    def effects(self) -> int:
        return Reservation.objects.exclude(steps="").exclude(booking_id="refused").count()

    def refused(self, **over: Any) -> dict[str, Any]:
        return changed(4242, "refused", 2, revision=1, **over)


class Refunds:
    refusal = "differs"

    def event(self, booking: str = "B", **over: Any) -> dict[str, Any]:
        return cancelled(1, booking, paymentId="pi_1", amount=150.0, **over)

    def effects(self) -> int:
        return Refund.objects.exclude(booking_id="refused").count()

    def refused(self, **over: Any) -> dict[str, Any]:
        if not Refund.objects.filter(booking_id="refused").exists():
            RefundFactory.create(booking_id="refused", payment_id="pi_1", amount_minor=1)
        return self.event("refused", **over)

    def mend(self) -> None:
        Refund.objects.filter(booking_id="refused").delete()


class Emails:
    refusal = "differs"

    def event(self, booking: str = "B", **over: Any) -> dict[str, Any]:
        return cancelled(1, booking, userEmail="ann@example.com", tourName="Louvre", **over)

    def effects(self) -> int:
        told = CancellationEmail.objects.filter(state=CancellationEmail.State.SENT)
        return told.exclude(booking_id="refused").count()

    def refused(self, **over: Any) -> dict[str, Any]:
        if not CancellationEmail.objects.filter(booking_id="refused").exists():
            EmailFactory.create(booking_id="refused", recipient="bob@example.com")
        return self.event("refused", **over)

    def mend(self) -> None:
        CancellationEmail.objects.filter(booking_id="refused").delete()


class WebShop:
    """What is announced of tours, which none of these needs to have: a booking stands for each."""

    refusal = "differs"

    def event(self, booking: str = "B", **over: Any) -> dict[str, Any]:
        return availability(crc32(booking.encode()), 7, **over)

    def effects(self) -> int:
        return TourAvailability.objects.exclude(tour_id=crc32(b"refused")).count()

    def refused(self, **over: Any) -> dict[str, Any]:
        event = self.event("refused", **over)
        columns = {"capacity": 20, "version": 7, "available": 4, "updated_at": timezone.now()}
        TourAvailability.objects.get_or_create(columns, tour_id=crc32(b"refused"))
        return event

    def mend(self) -> None:
        TourAvailability.objects.filter(tour_id=crc32(b"refused")).delete()


SUBJECTS: dict[str, type[Subject]] = {
    "tour-catalog.booking-created": BookingsCreated,
    "tour-catalog.booking-cancelled": BookingsCancelled,
    "tour-catalog.booking-changed": BookingsChanged,
    "payment-gateway.booking-cancelled": Refunds,
    "notification.booking-cancelled": Emails,
    "web-shop.availability-changed": WebShop,
}
