from typing import Any

from django.db import models
from django.utils import timezone

from booking_platform.contract.trace_context import PARENT_LENGTH
from booking_platform.messaging import clock
from booking_platform.messaging.rules import (
    LONGEST_OUTCOME,
    LONGEST_QUEUE,
    LONGEST_REASON,
    REASONS,
    Reason,
)


class ProcessedEvent(models.Model):
    """One event that one consumer has applied: the memory that makes a repeat harmless."""

    event_id = models.CharField(max_length=255)
    consumer = models.CharField(
        max_length=LONGEST_QUEUE, help_text="The queue that the event came from."
    )
    event_type = models.CharField(max_length=100)
    aggregate_id = models.CharField(
        max_length=255, blank=True, help_text="What the event speaks of, where it names it."
    )
    fingerprint = models.CharField(
        max_length=64, help_text="SHA-256 of the event's type and payload, numbers by value."
    )
    outcome = models.CharField(max_length=LONGEST_OUTCOME, help_text="What the event did.")
    occurred_at = models.DateTimeField(null=True, help_text="The event's own timestamp.")
    processed_at = models.DateTimeField(default=timezone.now)
    # Not positive by a check: to add one, PostgreSQL reads the whole table while everybody waits for it.
    repeats = models.IntegerField(
        default=0, db_default=0, help_text="How often it came again, without effect."
    )
    last_repeated_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "processed_events"
        ordering = ("-processed_at", "-id")
        constraints = (
            models.UniqueConstraint(
                fields=("event_id", "consumer"), name="processed_events_once_per_consumer"
            ),
        )
        indexes = (
            models.Index(fields=("event_type",), name="processed_events_type"),
            models.Index(fields=("aggregate_id",), name="processed_events_aggregate"),
            models.Index(fields=("processed_at",), name="processed_events_time"),
        )

    def __str__(self) -> str:
        return f"{self.event_type} {self.event_id} → {self.outcome}"


class DeadLetter(models.Model):
    """An event that could not be processed, kept as it came until a person decides.

    What came is removed some time after that decision.
    """

    class State(models.TextChoices):
        PARKED = "parked", "parked: waits for a person"
        REPLAYED = "replayed", "replayed: sent to its queue again"
        EDITED = (
            "edited",
            "replayed, edited: sent to its queue with changes, under an id of its own",
        )
        DISCARDED = "discarded", "discarded: a person decided that it is not needed"

    queue = models.CharField(max_length=255, help_text="Where it came from and goes on replay.")
    event_id = models.CharField(max_length=255, blank=True)
    event_type = models.CharField(max_length=100, blank=True)
    aggregate_id = models.CharField(
        max_length=255,
        blank=True,
        default="",
        db_default="",
        help_text="What it speaks of, as far as that can be read.",
    )
    fingerprint = models.CharField(max_length=64)
    body = models.BinaryField()
    size = models.PositiveBigIntegerField(
        null=True, blank=True, help_text="Bytes of the message, where only its beginning is kept."
    )
    reason = models.CharField(
        max_length=LONGEST_REASON, help_text="The code of a registered reason."
    )
    detail = models.TextField(help_text="What is wrong, in a sentence.")
    attempts = models.PositiveIntegerField(default=1, help_text="How often it came.")
    state = models.CharField(max_length=10, choices=State, default=State.PARKED)
    parked_at = models.DateTimeField(default=timezone.now, help_text="When it came first.")
    last_parked_at = models.DateTimeField(default=timezone.now, help_text="When it came last.")
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolved_by = models.CharField(max_length=150, blank=True)
    resolution = models.TextField(blank=True, help_text="Why it was replayed or discarded.")
    replay_token = models.CharField(
        max_length=32,
        blank=True,
        default="",
        db_default="",
        help_text="What the replay carries, so that nobody else can claim to be one.",
    )
    trace = models.CharField(
        max_length=PARENT_LENGTH,
        blank=True,
        default="",
        db_default="",
        help_text="W3C traceparent with which it came; a replay has it too.",
    )
    # What a person has corrected. It is stored before it is sent, and stays as it is from then on: what
    # may be in the queue can only be sent again under the same id.
    edited_event_id = models.CharField(  # noqa: DJ001  (null: the rows that have one are few, and indexed)
        max_length=255,
        null=True,
        blank=True,
        help_text="Under which its edited body was sent, or may have been.",
    )
    edited_body = models.BinaryField(null=True, blank=True)
    edited_by = models.CharField(max_length=150, blank=True, default="", db_default="")
    edited_at = models.DateTimeField(null=True, blank=True)
    forgotten_at = models.DateTimeField(
        null=True, blank=True, help_text="When its body and detail were removed."
    )

    class Meta:
        db_table = "dead_letters"
        ordering = ("-last_parked_at", "-id")
        constraints = (
            models.UniqueConstraint(
                fields=("queue", "event_id", "fingerprint"),
                condition=models.Q(state="parked"),
                name="dead_letters_one_open",
            ),
        )
        indexes = (
            models.Index(fields=("state", "reason"), name="dead_letters_state_reason"),
            models.Index(fields=("event_id",), name="dead_letters_event"),
            models.Index(
                fields=("edited_event_id",),
                condition=models.Q(edited_event_id__isnull=False),
                name="dead_letters_edited",
            ),
            models.Index(fields=("-last_parked_at", "-id"), name="dead_letters_newest"),
            models.Index(
                fields=("reason", "queue", "event_type", "parked_at"),
                condition=models.Q(state="parked"),
                name="dead_letters_open",
            ),
            models.Index(fields=("aggregate_id",), name="dead_letters_aggregate"),
            models.Index(
                fields=("resolved_at",),
                condition=models.Q(resolved_at__isnull=False, forgotten_at__isnull=True),
                name="dead_letters_remembered",
            ),
        )
        permissions = (
            ("replay_deadletter", "Can replay dead letters"),
            ("discard_deadletter", "Can discard dead letters"),
            ("edit_deadletter", "Can edit dead letters and replay them"),
        )

    def __str__(self) -> str:
        return f"{self.event_id or 'unreadable event'} from {self.queue or 'an unknown queue'}"

    @property
    def why(self) -> Reason:
        """Return the reason, also where the app that registered it is gone."""
        return REASONS.get(self.reason, Reason(self.reason, self.reason))

    @property
    def forgotten(self) -> bool:
        """Whether what came was removed."""
        return self.forgotten_at is not None

    @property
    def edit_begun(self) -> bool:
        """Whether an edited body is stored that may have been sent."""
        return self.edited_event_id is not None

    def resolve(self, state: "DeadLetter.State", *, by: str, why: str) -> bool:
        """Close this dead letter; return false if it was parked again, edited or closed since it was read."""
        fields: dict[str, Any] = {
            "state": state,
            "resolved_at": clock.now(),
            "resolved_by": by,
            "resolution": why,
        }
        as_read = DeadLetter.objects.filter(
            pk=self.pk,
            state=self.State.PARKED,
            attempts=self.attempts,
            edited_event_id=self.edited_event_id,
        )
        return as_read.update(**fields) == 1


class OutboxRow(models.Model):
    """What one transaction announces, until it is published and for some time after that."""

    messages = models.TextField(
        help_text="JSON: a list of routing key, event, and trace, in order."
    )
    announcements = models.PositiveIntegerField(help_text="How many they are.")
    size = models.PositiveIntegerField(help_text="Bytes of the messages.")
    created_at = models.DateTimeField()
    published_at = models.DateTimeField(null=True, blank=True, help_text="Confirmed by the broker.")

    class Meta:
        db_table = "outbox"
        indexes = (
            models.Index(
                fields=("id",),
                condition=models.Q(published_at__isnull=True),
                name="outbox_waiting",
            ),
        )

    def __str__(self) -> str:
        many = "" if self.announcements == 1 else "s"
        return f"{self.announcements} announcement{many} of {self.created_at}"

    @classmethod
    def waiting(cls) -> "models.QuerySet[OutboxRow]":
        """Return the rows that are not published yet."""
        return cls.objects.filter(published_at__isnull=True)


class Suspect(models.Model):
    """One beginning of a redelivered message that has not ended: its worker may have died of it."""

    queue = models.CharField(max_length=LONGEST_QUEUE)
    fingerprint = models.CharField(max_length=64, help_text="SHA-256 of the body.")
    holder = models.CharField(max_length=32, help_text="Who began it.")
    begun_at = models.DateTimeField()

    class Meta:
        db_table = "suspects"
        constraints = (
            models.UniqueConstraint(
                fields=("queue", "fingerprint", "holder"), name="suspects_once_per_holder"
            ),
        )

    def __str__(self) -> str:
        return f"a message of {self.queue}, begun at {self.begun_at}"


class Attempt(models.Model):
    """What an attempt at a call to the world outside came to, or several in a row that came to the same."""

    what = models.CharField(max_length=100, help_text="The model of the row: app.model.")
    row = models.BigIntegerField(help_text="Its primary key.")
    number = models.PositiveIntegerField(help_text="Of the attempt; of the last of several.")
    times = models.PositiveIntegerField(default=1, help_text="How many came to the same in a row.")
    outcome = models.CharField(max_length=100)
    answer = models.TextField(blank=True, help_text="What was answered, in words.")
    reference = models.CharField(
        max_length=255, blank=True, help_text="By which who answered knows the last answer."
    )
    announced = models.CharField(
        max_length=255, blank=True, help_text="Routing keys of what was announced of it."
    )
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()

    class Meta:
        db_table = "attempts"
        indexes = (
            models.Index(fields=("what", "row", "id"), name="attempts_of_row"),
            models.Index(fields=("last_at",), name="attempts_time"),
        )

    def __str__(self) -> str:
        return f"attempt {self.number} at {self.what} {self.row}: {self.outcome}"


class Heartbeat(models.Model):
    """When a worker last did what beat asks each task queue for: beat, broker, worker, database work."""

    queue = models.CharField(max_length=LONGEST_QUEUE, help_text="Celery's queue that it serves.")
    worker = models.CharField(max_length=255)
    seen_at = models.DateTimeField()

    class Meta:
        db_table = "heartbeats"
        constraints = (
            models.UniqueConstraint(fields=("queue", "worker"), name="heartbeats_once_per_worker"),
        )

    def __str__(self) -> str:
        return f"{self.worker} served {self.queue} at {self.seen_at}"
