from collections.abc import Mapping, Sequence
from typing import Any

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now, Upper
from django.utils import timezone

from booking_platform.contract.announcing import Announced
from booking_platform.messaging import clock
from booking_platform.messaging.leases import Conclusion, Leased
from notifications import announcing
from notifications.announcing import NO_ANSWER, Facts


class CancellationEmail(Leased):
    """The e-mail about one step of a booking's cancellation: what is told, and what came of it.

    A step is named by the number of seats that the booking keeps after it. Events that name none are
    of the whole booking, which is step 0.
    """

    class State(models.TextChoices):
        PENDING = "pending", "pending: nothing was handed over yet"
        SENDING = "sending", "sending: is being handed over to the mail server"
        SENT = "sent", "sent: the mail server has accepted it"
        FAILED = "failed", "failed: it was refused, or given up, and not sent"
        UNCERTAIN = "uncertain", "uncertain: was handed over, and no answer came"

    not_again = Q(state=State.SENDING)  # its holder's late answer may still come

    event_id = models.CharField(
        max_length=255, blank=True, default="", db_default="", help_text="Of the event that asked."
    )
    booking_id = models.CharField(max_length=255)
    seats_remaining = models.PositiveIntegerField(
        default=0, db_default=0, help_text="The step: how many seats the booking keeps after it."
    )
    step_named = models.BooleanField(
        default=False, db_default=False, help_text="Whether the event named its step."
    )
    revision = models.BigIntegerField(
        null=True,
        blank=True,
        help_text="As the event says it: it tells steps apart that leave as many seats.",
    )
    state = models.CharField(max_length=20, choices=State, default=State.PENDING)
    reason = models.CharField(
        max_length=30,
        blank=True,
        default="",
        db_default="",
        help_text="Why it failed or is uncertain, in a word.",
    )
    recipient = models.CharField(max_length=254, blank=True, help_text="Empty once forgotten.")
    locale = models.CharField(max_length=35, help_text="The language it is written in.")
    subject = models.CharField(max_length=255, blank=True)
    text_body = models.TextField(blank=True)
    html_body = models.TextField(blank=True)
    message_id = models.CharField(
        max_length=255, unique=True, help_text="The same on every attempt (RFC 5322, 3.6.4)."
    )
    created_at = models.DateTimeField(default=timezone.now, db_default=Now())
    wanted_at = models.DateTimeField(
        default=timezone.now, db_default=Now(), help_text="Since when it is to be sent."
    )
    unanswered = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="How often it was handed over without an answer."
    )
    sent_at = models.DateTimeField(null=True, blank=True)
    forgotten_at = models.DateTimeField(
        null=True, blank=True, help_text="When its address and text were removed."
    )

    class Meta:
        db_table = "cancellation_emails"
        verbose_name = "cancellation e-mail"
        ordering = ("-created_at", "-id")
        constraints = (
            models.UniqueConstraint(
                fields=("booking_id", "seats_remaining"), name="cancellation_emails_step"
            ),
            models.CheckConstraint(
                condition=Q(state__in=("pending", "sending", "sent", "failed", "uncertain")),
                name="cancellation_emails_state",
            ),
            models.CheckConstraint(
                condition=~Q(recipient="") | Q(forgotten_at__isnull=False),
                name="cancellation_emails_recipient",
            ),
        )
        indexes = (
            *Leased.Meta.indexes,
            models.Index(fields=("state",), name="cancellation_emails_by_state"),
            models.Index(fields=("created_at",), name="cancellation_emails_created"),
            models.Index(fields=("event_id",), name="cancellation_emails_event"),
            models.Index(Upper("recipient"), name="cancellation_emails_to"),  # for __iexact
            models.Index(
                fields=("created_at",),
                condition=Q(forgotten_at__isnull=True),
                name="cancellation_emails_remembered",
            ),
            models.Index(
                fields=("updated_at",),
                condition=Q(state__in=("failed", "uncertain"), settled_at__isnull=True),
                name="cancellation_emails_waiting",
            ),
        )
        permissions = (
            ("resend_cancellationemail", "Can have cancellation e-mails sent again"),
            ("settle_cancellationemail", "Can mark cancellation e-mails settled"),
        )

    def __str__(self) -> str:
        step = f", {self.step}" if self.seats_remaining else ""
        return f"{self.booking_id}{step}: {self.state}"

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
        """Return an uncertain mail: it may have gone out."""
        why = f"what the mail server answered can't be stored ({type(error).__name__})"
        return Conclusion({"state": self.State.UNCERTAIN, "reason": NO_ANSWER, "last_error": why})

    @property
    def step(self) -> str:
        """The step of the booking's cancellation in words."""
        seats = self.seats_remaining
        if seats:
            return f"keeps {seats} seat{'' if seats == 1 else 's'}"
        return "whole booking" if self.step_named else "not named: taken for the whole booking"

    @property
    def waits_for_person(self) -> bool:
        """Whether nothing more happens by itself, though the customer may not have been told."""
        return self.state in (self.State.FAILED, self.State.UNCERTAIN) and not self.settled

    @property
    def forgotten(self) -> bool:
        """Whether its address and text were removed."""
        return self.forgotten_at is not None

    def resend(self) -> bool:
        """Schedule it for the next sweep, as a person wishes; return false if that can't be.

        It may tell the customer twice, if it is uncertain. It keeps its ``Message-ID``.
        """
        waiting = self.waits_for_person or self.state == self.State.PENDING
        now = clock.now()
        return (
            waiting
            and not self.forgotten
            and self.decide(
                state=self.State.PENDING,
                reason="",
                attempts=0,
                wanted_at=now,
                next_attempt_at=now,
            )
        )

    def settle(self, *, by: str, why: str) -> bool:
        """Close what waits for a person; return false if it does not, or not any more."""
        return self.waits_for_person and self.close(by=by, why=why)


# As ``waits_for_person`` says it of one.
WAITING_FOR_PERSON = Q(
    state__in=(CancellationEmail.State.FAILED, CancellationEmail.State.UNCERTAIN),
    settled_at__isnull=True,
)
