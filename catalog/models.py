from typing import Any, TypeAlias

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models, transaction
from django.db.models import F, Q, Value
from django.db.models.functions import Greatest, Now

from booking_platform.messaging import clock, outbox
from catalog import announcing, bookings
from catalog.causes import Cause, load


def seats_left(capacity: Any) -> Greatest:
    """Return the SQL of the seats that can still be sold, from the columns of a tour's row.

    Seats cancelled for bookings that the platform doesn't know yet make ``unledgered_seats``
    negative; that balance waits for their creation and frees no seat twice.
    """
    sold_outside = Greatest(Value(0), F("unledgered_seats"))
    return Greatest(Value(0), capacity - F("reserved_seats") - sold_outside)


# Seats sold beyond the capacity, as SQL.
OVERBOOKED = Greatest(
    Value(0),
    F("reserved_seats") + Greatest(Value(0), F("unledgered_seats")) - F("capacity"),
    output_field=models.BigIntegerField(),
)


class Tour(models.Model):
    """A tour and its seats.

    The seat numbers belong to the workers, which change them by compare-and-set on
    ``optimistic_lock_version``. Staff change the capacity; what follows from it is computed by
    the database, in the same statement.
    """

    name = models.CharField(max_length=255)
    description = models.TextField(blank=True, default="", db_default="")
    price = models.DecimalField(max_digits=10, decimal_places=2, validators=[MinValueValidator(0)])
    capacity = models.PositiveIntegerField(help_text="Seats that the tour has.")
    available_seats = models.PositiveIntegerField(
        help_text="Seats that can still be sold: capacity, less those reserved, less those sold "
        "outside the ledger."
    )
    reserved_seats = models.BigIntegerField(
        default=0, db_default=0, help_text="Seats of the reservations in state reserved."
    )
    unledgered_seats = models.BigIntegerField(
        default=0,
        db_default=0,
        help_text="Seats sold outside the ledger (before the platform, or without a booking id), "
        "less seats cancelled for bookings that are not known.",
    )
    optimistic_lock_version = models.BigIntegerField(default=0, db_default=0)
    created_at = models.DateTimeField(auto_now_add=True, db_default=Now())
    updated_at = models.DateTimeField(auto_now=True, db_default=Now())

    STAFF_FIELDS = ("name", "description", "price", "capacity")

    class Meta:
        db_table = "tours"
        ordering = ("name", "id")
        constraints = (
            models.CheckConstraint(
                condition=Q(available_seats=seats_left(F("capacity"))),
                name="tours_available_seats_add_up",
                violation_error_message="The seats do not add up.",
            ),
            models.CheckConstraint(
                condition=Q(reserved_seats__gte=0), name="tours_reserved_seats_not_negative"
            ),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def seats(self) -> bookings.Seats:
        """The numbers of the tour."""
        return bookings.Seats(
            self.pk,
            self.optimistic_lock_version,
            self.capacity,
            self.reserved_seats,
            self.unledgered_seats,
        )

    @property
    def overbooked_seats(self) -> int:
        """Seats sold beyond the capacity: new releases reduce these first."""
        return self.seats.overbooked

    def explain_seats(self) -> str:
        """Return in a sentence how the available seats come about."""
        parts = [f"{self.capacity} seats", f"− {self.reserved_seats} reserved"]
        if self.unledgered_seats > 0:
            parts.append(f"− {self.unledgered_seats} sold outside the ledger")
        text = f"{' '.join(parts)} = {self.available_seats} available"
        if self.overbooked_seats:
            text += f", overbooked by {self.overbooked_seats}"
        if self.unledgered_seats < 0:
            text += (
                f"; {-self.unledgered_seats} cancelled before their creation arrived, "
                "which will take no seat"
            )
        return text

    def save(self, *args: Any, by: str = "", **kwargs: Any) -> None:
        """Store a new tour, or what staff may change of one.

        A new tour takes what is missing from what is given: without ``capacity`` it equals
        ``available_seats``, without ``available_seats`` all seats are free; seats neither
        available nor reserved count as sold outside the ledger. On an existing tour only
        ``STAFF_FIELDS`` are written, and the available seats follow from the row as it is in the
        database, so that saving what was read a while ago undoes no booking. ``by`` is who does it;
        the history of the tour's seats says so.

        Raises:
            ValidationError: more seats available than the capacity has.
        """
        if self._state.adding:
            self._fill_in_seats()
            with transaction.atomic():
                super().save(*args, **kwargs)
                self._announce()
                SeatChange.record(self.seats, by=by, what=self._beginning())
            return
        wanted = kwargs.pop("update_fields", None)
        changed = [name for name in self.STAFF_FIELDS if wanted is None or name in wanted]
        if not changed:
            return
        capacity = Value(self.capacity) if "capacity" in changed else F("capacity")
        self.available_seats = seats_left(capacity)
        self.optimistic_lock_version = F("optimistic_lock_version") + 1
        derived = ["available_seats", "optimistic_lock_version", "updated_at"]
        with transaction.atomic():
            before = self._locked_capacity() if "capacity" in changed else None
            super().save(*args, **kwargs, update_fields=[*changed, *derived])
            self.refresh_from_db()
            self._announce()
            if before not in (None, self.capacity):
                SeatChange.record(self.seats, by=by, what=f"capacity {before} → {self.capacity}")

    def _locked_capacity(self) -> int | None:
        """Return the capacity in the database, which stays until the transaction ends."""
        row = Tour.objects.select_for_update(no_key=True).filter(pk=self.pk)
        return row.values_list("capacity", flat=True).first()

    def _beginning(self) -> str:
        words = f"created with {self.capacity} seats"
        sold = self.reserved_seats + self.unledgered_seats
        return f"{words}, {sold} of them sold" if sold else words

    def _announce(self) -> None:
        """Store the announcement of the tour's numbers, in the transaction that has changed them."""
        outbox.store([announcing.of_tour(self.seats, self.optimistic_lock_version, clock.now())])

    def _fill_in_seats(self) -> None:
        if self.capacity is None:
            self.capacity = self.reserved_seats + (self.available_seats or 0)
        if self.available_seats is None:
            sold = self.reserved_seats + max(0, self.unledgered_seats)
            self.available_seats = max(0, self.capacity - sold)
        elif self.unledgered_seats == 0:
            free = self.capacity - self.reserved_seats
            if self.available_seats > free:
                problem = f"available_seats is {self.available_seats}: only {free} are free."
                raise ValidationError({"available_seats": problem})
            self.unledgered_seats = free - self.available_seats


class Reservation(models.Model):
    """What the platform knows of one booking's seats."""

    State: TypeAlias = bookings.State

    booking_id = models.CharField(max_length=255, unique=True)
    tour = models.ForeignKey(  # its index is the one with the state, below
        Tour, on_delete=models.PROTECT, related_name="reservations", db_index=False
    )
    seats = models.PositiveIntegerField(
        help_text="That it holds; else those that it held or asked for last, or that were cancelled "
        "before its creation arrived."
    )
    state = models.CharField(max_length=10, choices=State)
    seats_cancelled = models.PositiveIntegerField(
        null=True, blank=True, help_text="What the last cancellation said; the seats above count."
    )
    booked = models.IntegerField(
        null=True,
        blank=True,
        help_text="What its creation said; empty in rows of an older version.",
    )
    steps = models.TextField(
        blank=True,
        default="",
        db_default="",
        help_text="Its cancellations and changes (catalog.life.Step, as JSON).",
    )
    created_event_id = models.CharField(max_length=255, blank=True)
    cancelled_event_id = models.CharField(max_length=255, blank=True)
    created_at = models.DateTimeField(help_text="When the platform first heard of the booking.")
    updated_at = models.DateTimeField()

    class Meta:
        db_table = "reservations"
        ordering = ("-updated_at", "-id")
        indexes = (models.Index(fields=("tour", "state"), name="reservations_tour_state"),)

    def __str__(self) -> str:
        return f"{self.booking_id}: {self.seats} × seat, {self.state}"


class SeatChange(models.Model):
    """One change of a tour's seats: the numbers after it, and what caused it.

    A group of events makes one row for each tour whose numbers it changes, or whose seats were too few
    for one of its events; staff's change of the capacity makes one, too. The row is written in the
    transaction of the change. Rows are deleted after a time, but for the newest of each tour.
    """

    pk = models.CompositePrimaryKey("tour_id", "version")
    tour = models.ForeignKey(  # no constraint: the check of it would cost each group a query for each row
        Tour,
        on_delete=models.CASCADE,
        db_constraint=False,
        db_index=False,
        related_name="seat_changes",
    )
    version = models.BigIntegerField(help_text="Of the tour, since the change.")
    changed_at = models.DateTimeField()
    capacity = models.PositiveIntegerField()
    reserved = models.BigIntegerField()
    unledgered = models.BigIntegerField()
    causes = models.TextField(
        blank=True, default="", db_default="", help_text="catalog.causes.Cause, as JSON."
    )
    changed_by = models.CharField(
        max_length=255, blank=True, default="", db_default="", help_text="Who, if no event did."
    )
    what = models.CharField(
        max_length=255, blank=True, default="", db_default="", help_text="What they did."
    )

    class Meta:
        db_table = "seat_changes"
        ordering = ("tour_id", "version")
        indexes = (models.Index(fields=("tour", "changed_at"), name="seat_changes_tour_at"),)

    def __str__(self) -> str:
        return f"tour {self.tour_id}, version {self.version}: {self.seats.available} available"

    @staticmethod
    def record(seats: bookings.Seats, *, by: str, what: str) -> None:
        """Store what a person or a command did to a tour, in the transaction that does it."""
        change = SeatChange(
            tour_id=seats.tour_id,
            version=seats.version,
            changed_at=clock.now(),
            capacity=seats.capacity,
            reserved=seats.reserved,
            unledgered=seats.unledgered,
            changed_by=by,
            what=what,
        )
        SeatChange.objects.bulk_create([change], ignore_conflicts=True)

    @property
    def seats(self) -> bookings.Seats:
        """The numbers of the tour after the change."""
        return bookings.Seats(
            self.tour_id, self.version, self.capacity, self.reserved, self.unledgered
        )

    @property
    def caused_by(self) -> tuple[Cause, ...]:
        """The events that made the change, in their order; empty for what a person did."""
        return load(self.causes)


class TourAvailability(models.Model):
    """The seats of a tour as a web shop shows them: the newest numbers that were announced.

    The consumer of ``TourAvailabilityChanged`` writes it (``catalog/availability.py``); the tour itself
    is not locked or read for it. The row of a tour that was deleted may stay, and nobody is shown it.
    """

    tour = models.OneToOneField(
        Tour,
        primary_key=True,
        on_delete=models.DO_NOTHING,
        db_constraint=False,  # an announcement may come after the tour is deleted
        related_name="announced",
    )
    capacity = models.BigIntegerField(help_text="Seats that the tour has.")
    available = models.BigIntegerField(help_text="Seats that can still be sold.")
    version = models.BigIntegerField(help_text="Of the tour, when it had these numbers.")
    updated_at = models.DateTimeField()

    class Meta:
        db_table = "tour_availability"

    def __str__(self) -> str:
        return f"tour {self.tour_id}: {self.available} of {self.capacity}, version {self.version}"
