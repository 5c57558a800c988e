from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from booking_platform.contract.announcing import Announced
from booking_platform.messaging import clock
from booking_platform.messaging.leases import Conclusion, Leased
from booking_platform.money import format_money, major_units
from payments import announcing
from payments.announcing import Facts
from payments.keys import next_issue
from payments.reviews import BY_HAND, REVIEWS

# A step of a booking's life is named by the number of seats that the booking keeps.
WHOLE_BOOKING = 0


class Refund(Leased):
    """One refund of a booking's payment: what is sent to Stripe, under which key, and what came of it.

    Booking, payment and step identify it. What is sent is known once the payment was looked at.
    """

    class Status(models.TextChoices):
        IN_PROGRESS = "in_progress", "in progress: may or may not have reached Stripe yet"
        COMPLETED = "completed", "completed: Stripe has the refund, in a status of its own"
        FAILED = "failed", "failed: it can't be made, and Stripe has no refund of ours"

    class StripeStatus(models.TextChoices):
        """https://docs.stripe.com/api/refunds/object#refund_object-status"""

        PENDING = "pending", "pending: on its way"
        REQUIRES_ACTION = "requires_action", "requires action: the customer must do something"
        SUCCEEDED = "succeeded", "succeeded: the bank has it"
        FAILED = "failed", "failed: the bank sent it back"
        CANCELED = "canceled", "canceled: taken back before it went out"

    idempotency_key = models.CharField(max_length=255, unique=True)
    status = models.CharField(max_length=50, choices=Status, default=Status.IN_PROGRESS)
    # Empty until the payment was looked at. A worker of the version before does not look, and would
    # send what stands here: Stripe refuses an empty request, and a person sees it.
    request_payload = models.JSONField(
        blank=True,
        default=dict,
        help_text="What every attempt sends, frozen when it is first sent.",
    )
    response_payload = models.JSONField(null=True, blank=True, help_text="Stripe's last word.")
    created_at = models.DateTimeField(default=timezone.now, db_default=Now())
    cancelled_at = models.DateTimeField(
        null=True, blank=True, help_text="The timestamp of the event that asked for it."
    )

    event_id = models.CharField(
        max_length=255, blank=True, default="", db_default="", help_text="Of the event that asked."
    )
    booking_id = models.CharField(max_length=255)
    payment_id = models.CharField(max_length=255, help_text="Stripe's payment intent or charge.")
    seats_remaining = models.PositiveIntegerField(
        default=WHOLE_BOOKING,
        db_default=WHOLE_BOOKING,
        help_text="The step: how many seats the booking keeps; 0: the whole booking is cancelled.",
    )
    step_named = models.BooleanField(
        default=False, db_default=False, help_text="Whether the event named the step."
    )
    revision = models.BigIntegerField(
        null=True, blank=True, help_text="Of the booking, where the event names it."
    )
    further_payment = models.BooleanField(
        default=False,
        db_default=False,
        help_text="Whether the booking had a refund of another payment already.",
    )
    amount_asked = models.DecimalField(
        max_digits=14,
        decimal_places=2,  # no currency of Stripe goes in finer steps
        null=True,
        blank=True,
        help_text="To refund, as the event says; empty: stored by the version before.",
    )
    amount_minor = models.BigIntegerField(
        null=True,
        blank=True,
        help_text="The same in the currency's minor units; empty: the currency is not known yet.",
    )
    currency = models.CharField(
        max_length=3,
        blank=True,
        default="",
        help_text="As the event names it, else as the payment has it; empty: not known yet.",
    )
    first_sent_at = models.DateTimeField(
        null=True, blank=True, help_text="When the key was first taken up to be sent."
    )
    stripe_refund_id = models.CharField(max_length=255, null=True, blank=True, unique=True)
    stripe_status = models.CharField(max_length=50, blank=True, default="", db_default="")
    needs_review = models.BooleanField(
        default=False, db_default=False, help_text="Waits for a person; the last error says why."
    )
    review_code = models.CharField(
        max_length=30, blank=True, default="", db_default="", help_text="Why, in a word."
    )
    approved_at = models.DateTimeField(null=True, blank=True)
    approved_by = models.CharField(max_length=150, blank=True, default="", db_default="")
    approval = models.TextField(
        blank=True, default="", db_default="", help_text="Why a person let it go out."
    )
    approved_codes = models.CharField(
        max_length=255, blank=True, default="", db_default="", help_text="In spite of what."
    )
    by_hand = models.TextField(
        blank=True,
        default="",
        db_default="",
        help_text="Ids of refunds that may have been made by hand for this, as the last look found them.",
    )
    approved_by_hand = models.TextField(
        blank=True,
        default="",
        db_default="",
        help_text="Those that a person knows not to be for this.",
    )

    class Meta:
        db_table = "idempotency_store"
        ordering = ("-created_at", "-id")
        constraints = (
            models.CheckConstraint(
                condition=Q(status__in=("in_progress", "completed", "failed")),
                name="idempotency_store_status",
            ),
            models.CheckConstraint(
                condition=Q(amount_minor__gt=0), name="idempotency_store_amount_positive"
            ),
            models.CheckConstraint(
                condition=~Q(status="completed") | Q(stripe_refund_id__isnull=False),
                name="idempotency_store_completed_has_refund",
            ),
            models.UniqueConstraint(
                fields=("booking_id", "payment_id", "seats_remaining"),
                name="idempotency_store_step",
            ),
        )
        indexes = (
            *Leased.Meta.indexes,
            models.Index(fields=("status",), name="idx_idempotency_status"),
            models.Index(fields=("created_at",), name="idx_idempotency_created"),
            models.Index(fields=("payment_id",), name="idempotency_store_payment"),
            models.Index(fields=("event_id",), name="idempotency_store_event"),
            models.Index(
                fields=("updated_at",),
                condition=Q(needs_review=True),
                name="idempotency_store_review",
            ),
        )
        permissions = (
            ("retry_refund", "Can have refunds tried again"),
            ("settle_refund", "Can mark refunds settled"),
            ("reissue_refund", "Can send a refund again under a new key"),
            ("approve_refund", "Can let refunds go out that wait for a person"),
            ("request_refund", "Can replay cancellations into the refunds' queue"),
        )

    def __str__(self) -> str:
        return f"{self.booking_id}: {self.amount}, {self.status}"

    def announces(self, columns: Mapping[str, Any]) -> Sequence[Announced]:
        """Return what is announced when these columns are stored: nothing if nobody need know."""
        before, after = self.facts(), self.facts(columns)
        return announcing.of_change(before, after, told=self.announced, at=columns["updated_at"])

    @property
    def ids(self) -> dict[str, object]:
        return {**super().ids, "event_id": self.event_id, "booking_id": self.booking_id}

    def facts(self, columns: Mapping[str, Any] | None = None) -> Facts:
        """Return what announcements tell of it, with these columns if some are to be stored."""
        new = columns or {}
        return Facts(*(new.get(name, getattr(self, name)) for name in Facts._fields))

    def unstored(self, error: Exception) -> Conclusion:
        """Return a review: Stripe may have the refund, and another attempt would end like this one."""
        why = f"what Stripe answered can't be stored ({type(error).__name__})"
        return Conclusion({"needs_review": True, "review_code": "", "last_error": why})

    @property
    def amount(self) -> str:
        """The amount with its currency, for staff."""
        if self.amount_minor is None:
            return f"{self.amount_asked}, in the payment's currency"
        return format_money(self.amount_minor, self.currency)

    @property
    def asked(self) -> Decimal:
        """The amount that the event asked for, in major units."""
        if self.amount_asked is None:  # stored by the version before
            return Decimal(major_units(self.amount_minor or 0, self.currency))
        return self.amount_asked

    @property
    def sent(self) -> bool:
        """Whether a request under the key may have reached Stripe; it is the one that is frozen."""
        return self.first_sent_at is not None and bool(self.request_payload)

    @property
    def approved(self) -> frozenset[str]:
        """The codes in spite of which a person has let it go out."""
        return frozenset(self.approved_codes.split())

    def try_again(self) -> bool:
        """Schedule it for the next sweep, as a person wishes; return false if a worker has it now.

        What waited for a person may be sent again, under the same key while that is known.
        """
        anew = {} if self.stripe_refund_id or self.settled else self._anew()
        return self.decide(next_attempt_at=clock.now(), **anew)

    def approve(self, *, by: str, why: str) -> bool:
        """Schedule it to be sent in spite of its review code, if that may be waived.

        The payment is looked at once more. What else stands against it then waits for a person as
        before. Return false if it can't be approved, or changed since it was read.
        """
        review = REVIEWS.get(self.review_code)
        open_to_it = self.needs_review and not self.settled and not self.stripe_refund_id
        if not (open_to_it and review and review.approvable):
            return False
        now = clock.now()
        known = self.by_hand.split() if self.review_code == BY_HAND else []
        return self.decide(
            approved_at=now,
            approved_by=by,
            approval=f"{self.approval}\n{by}, {self.review_code}: {why}" if self.approval else why,
            approved_codes=" ".join(sorted(self.approved | {self.review_code})),
            approved_by_hand=" ".join([*self.approved_by_hand.split(), *known]),
            next_attempt_at=now,
            **self._anew(),
        )

    def settle(self, *, by: str, why: str) -> bool:
        """Close what waits for a person; return false if it does not, or not any more."""
        return self.needs_review and self.close(by=by, why=why, needs_review=False)

    def reissue(self) -> bool:
        """Schedule it to be sent under a new key; return false if it changed since it was read.

        Call it only if ``attempts.obstacle_to_reissue`` has just found none.
        """
        return self.decide(**self.under_next_key(), next_attempt_at=clock.now(), **self._anew())

    def under_next_key(self) -> dict[str, Any]:
        """Return the columns of the same refund as a new request, of which nothing was sent yet."""
        return {
            "idempotency_key": next_issue(self.idempotency_key),
            "request_payload": {},
            "first_sent_at": None,
        }

    def _anew(self) -> dict[str, Any]:
        """Return the columns of a refund that waits for nobody any more."""
        return {
            "status": self.Status.IN_PROGRESS,
            "needs_review": False,
            "review_code": "",
            "attempts": 0,
        }


IdempotencyStore = Refund  # the name by which its users know the table


class NothingToRefund(models.Model):
    """A step of a booking's life that asked for no refund. It outlives the memory of the event."""

    booking_id = models.CharField(max_length=255)
    seats_remaining = models.PositiveIntegerField(
        default=WHOLE_BOOKING, db_default=WHOLE_BOOKING, help_text="The step, as of a refund."
    )
    step_named = models.BooleanField(default=False, db_default=False)
    event_id = models.CharField(max_length=255, blank=True, default="", db_default="")
    created_at = models.DateTimeField(default=timezone.now, db_default=Now())

    class Meta:
        db_table = "nothing_to_refund"
        constraints = (
            models.UniqueConstraint(
                fields=("booking_id", "seats_remaining"), name="nothing_to_refund_step"
            ),
        )

    def __str__(self) -> str:
        return f"{self.booking_id}: nothing to refund"
