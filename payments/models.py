from hashlib import sha256
from typing import Any

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from booking_platform.messaging import clock
from booking_platform.messaging.leases import Conclusion, Leased
from booking_platform.money import format_money

# Names this platform's keys among others of the same Stripe account.
NAMESPACE = "booking-platform:refund:"


def idempotency_key(booking_id: str, *, issue: int = 1) -> str:
    """Return the key under which a booking's refund is sent to Stripe, the same on every attempt.

    It derives from what is refunded, not from the message that asks for it: a booking is cancelled
    once. It is a hash, since a booking id may be longer than a key, and may say who travels. Only
    a person, who has seen that Stripe has no refund under it, may have another ``issue``.
    """
    digest = sha256(f"BookingCancelled\0{booking_id}".encode()).hexdigest()
    return f"{NAMESPACE}{digest}" + (f":{issue}" if issue > 1 else "")


def refund_request(booking_id: str, payment_id: str, amount_minor: int, key: str) -> dict[str, Any]:
    """Return what is sent to Stripe; the metadata say whose refund it is, for whoever lists refunds."""
    return {
        "payment_intent": payment_id,
        "amount": amount_minor,
        "metadata": {"booking_id": booking_id, "idempotency_key": key},
    }


class Refund(Leased):
    """One booking's refund: what is sent to Stripe, under which key, and what came of it."""

    class Status(models.TextChoices):
        IN_PROGRESS = "in_progress", "in progress: may or may not have reached Stripe yet"
        COMPLETED = "completed", "completed: Stripe has the refund, in a status of its own"
        FAILED = "failed", "failed: Stripe refused, and has no refund of ours"

    class StripeStatus(models.TextChoices):
        """https://docs.stripe.com/api/refunds/object#refund_object-status"""

        PENDING = "pending", "pending: on its way"
        REQUIRES_ACTION = "requires_action", "requires action: the customer must do something"
        SUCCEEDED = "succeeded", "succeeded: the bank has it"
        FAILED = "failed", "failed: the bank sent it back"
        CANCELED = "canceled", "canceled: taken back before it went out"

    idempotency_key = models.CharField(max_length=255, unique=True)
    status = models.CharField(max_length=50, choices=Status, default=Status.IN_PROGRESS)
    request_payload = models.JSONField(help_text="What every attempt sends, frozen.")
    response_payload = models.JSONField(null=True, blank=True, help_text="Stripe's last word.")
    created_at = models.DateTimeField(default=timezone.now, db_default=Now())

    booking_id = models.CharField(max_length=255, unique=True)
    payment_id = models.CharField(max_length=255, help_text="Stripe's payment intent.")
    amount_minor = models.BigIntegerField(help_text="To refund, in the currency's minor units.")
    currency = models.CharField(max_length=3)
    first_sent_at = models.DateTimeField(
        null=True, blank=True, help_text="When the key was first taken up to be sent."
    )
    stripe_refund_id = models.CharField(max_length=255, null=True, blank=True, unique=True)
    stripe_status = models.CharField(max_length=50, blank=True, default="", db_default="")
    needs_review = models.BooleanField(
        default=False, db_default=False, help_text="Waits for a person; the last error says why."
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
        )
        indexes = (
            *Leased.Meta.indexes,
            models.Index(fields=("status",), name="idx_idempotency_status"),
            models.Index(fields=("created_at",), name="idx_idempotency_created"),
            models.Index(fields=("payment_id",), name="idempotency_store_payment"),
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
        )

    def __str__(self) -> str:
        return f"{self.booking_id}: {self.amount}, {self.status}"

    def unstored(self, error: Exception) -> Conclusion:
        """Return a review: Stripe may have the refund, and another attempt would end like this one."""
        why = f"what Stripe answered can't be stored ({type(error).__name__})"
        return Conclusion({"needs_review": True, "last_error": why})

    @property
    def amount(self) -> str:
        return format_money(self.amount_minor, self.currency)

    @property
    def reissued(self) -> bool:
        """Whether a person has had it sent under another key than the first."""
        return self.idempotency_key != idempotency_key(self.booking_id)

    def try_again(self) -> bool:
        """Schedule it for the next sweep, as a person wishes; return false if a worker has it now.

        What waited for a person may be sent again, under the same key while that is known.
        """
        anew = {} if self.stripe_refund_id or self.settled else {
            "status": self.Status.IN_PROGRESS, "needs_review": False, "attempts": 0
        }  # fmt: skip
        return self.decide(next_attempt_at=clock.now(), **anew)

    def settle(self, *, by: str, why: str) -> bool:
        """Close what waits for a person; return false if it does not, or not any more."""
        return self.needs_review and self.close(by=by, why=why, needs_review=False)

    def reissue(self) -> bool:
        """Schedule it to be sent under a new key; return false if it changed since it was read.

        Call it only if ``attempts.obstacle_to_reissue`` has just found none.
        """
        _, _, issue = self.idempotency_key.removeprefix(NAMESPACE).partition(":")
        key = idempotency_key(self.booking_id, issue=int(issue or 1) + 1)
        return self.decide(
            idempotency_key=key,
            request_payload=refund_request(
                self.booking_id, self.payment_id, self.amount_minor, key
            ),
            status=self.Status.IN_PROGRESS,
            needs_review=False,
            attempts=0,
            first_sent_at=None,
            next_attempt_at=clock.now(),
        )


IdempotencyStore = Refund  # the name by which its users know the table


class NothingToRefund(models.Model):
    """A booking whose cancellation asked for no refund. It outlives the memory of the event."""

    booking_id = models.CharField(max_length=255, unique=True)
    event_id = models.CharField(max_length=255, blank=True, default="", db_default="")
    created_at = models.DateTimeField(default=timezone.now, db_default=Now())

    class Meta:
        db_table = "nothing_to_refund"

    def __str__(self) -> str:
        return f"{self.booking_id}: nothing to refund"
