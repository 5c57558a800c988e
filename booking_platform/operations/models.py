from django.conf import settings
from django.db import models
from django.utils import timezone

from booking_platform.messaging import clock, leases
from booking_platform.messaging.leases import Leased
from booking_platform.messaging.rules import LONGEST_OUTCOME, LONGEST_QUEUE


class AuditRun(models.Model):
    """One audit of all promises, and what it found."""

    started_at = models.DateTimeField()
    finished_at = models.DateTimeField()
    found = models.PositiveIntegerField(help_text="How many findings, of all audits.")
    results = models.JSONField(
        help_text="Of each audit: how many findings, the first of them, and why it is not complete."
    )
    figures = models.JSONField(help_text="Numbers for information.")

    class Meta:
        db_table = "audit_runs"
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"{self.started_at:%Y-%m-%d %H:%M}: {self.found} finding{'' if self.found == 1 else 's'}"

    @property
    def age_seconds(self) -> float:
        """Seconds since it ended."""
        return max(0.0, (clock.now() - self.finished_at).total_seconds())

    @property
    def incomplete(self) -> list[str]:
        """The names of the audits that could not look at all there is."""
        return [name for name, result in self.results.items() if result["incomplete"]]

    @classmethod
    def newest(cls) -> "AuditRun | None":
        """Return the last run; None if there was none."""
        return cls.objects.order_by("-pk").first()


class BulkJob(Leased):
    """One decision about many dead letters, which a worker carries out letter by letter.

    ``position`` and the counts are stored with each letter, in one transaction: however often a worker
    dies, each letter is counted once.
    """

    class Kind(models.TextChoices):
        REPLAY = "replay", "replay: send each to its queue again"
        DISCARD = "discard", "discard: close each without effect"

    kind = models.CharField(max_length=10, choices=Kind)
    selection = models.JSONField(
        help_text="Which letters: what a list was filtered by, or their ids."
    )
    newest = models.BigIntegerField(help_text="The newest letter that is in it.")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    made_by = models.CharField(max_length=150)
    made_at = models.DateTimeField(default=timezone.now)
    why = models.TextField(blank=True)
    total = models.PositiveIntegerField(help_text="Letters that it was about when it was made.")
    done = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    failures = models.JSONField(
        default=list, help_text="The first letters that stayed open, and why."
    )
    position = models.BigIntegerField(
        default=0, help_text="The last letter that it has dealt with."
    )
    stopped_by = models.CharField(max_length=150, blank=True, default="", db_default="")
    stopped_because = models.TextField(blank=True, default="", db_default="")
    finished_at = models.DateTimeField(
        null=True, blank=True, help_text="When it ended, or was stopped."
    )

    class Meta:
        db_table = "bulk_jobs"
        ordering = ("-id",)
        indexes = Leased.Meta.indexes
        permissions = (
            ("export_records", "Can export lists as CSV"),
            ("export_private", "Can export addresses and messages as CSV"),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.total:,} dead letter{'' if self.total == 1 else 's'}"

    @property
    def finished(self) -> bool:
        """Whether it does nothing more."""
        return self.finished_at is not None

    @property
    def stopped(self) -> bool:
        """Whether a person, or a right that was lost, has stopped it; it may not have ended yet."""
        return bool(self.stopped_by or self.stopped_because)

    @property
    def dealt_with(self) -> int:
        """How many letters it has dealt with."""
        return self.done + self.failed

    @property
    def percent(self) -> int:
        """How far it has come; letters that others have closed meanwhile are not dealt with."""
        if self.finished and not self.stopped:
            return 100
        return min(99, 100 * self.dealt_with // self.total) if self.total else 0

    def stop(self, *, by: str) -> bool:
        """Store that a person wants it to stop; return false if it has ended, or somebody else stopped it.

        A worker that has it under lease stops after some letters.
        """
        jobs = BulkJob.objects.filter(pk=self.pk, finished_at__isnull=True, stopped_by="")
        ended = {"finished_at": clock.now(), "next_attempt_at": None}
        free = {"lease_token": None, "lease_until": None}
        if leases.at_rest(jobs).update(stopped_by=by, **ended, **free):
            return True
        return jobs.update(stopped_by=by) == 1


class Tally(models.Model):
    """How often something happened within a minute: for display, since nobody counts a large table then."""

    kind = models.CharField(max_length=20, help_text="What is counted.")
    minute = models.DateTimeField(help_text="When the minute began.")
    subject = models.CharField(
        max_length=LONGEST_QUEUE,
        blank=True,
        help_text="The consumer, or what was written; empty: a mark that the minute is counted.",
    )
    word = models.CharField(
        max_length=LONGEST_OUTCOME, blank=True, help_text="The outcome, where it has one."
    )
    count = models.BigIntegerField()

    class Meta:
        db_table = "tallies"
        verbose_name, verbose_name_plural = "count", "counts by minute"
        ordering = ("-minute", "kind", "subject", "word")
        constraints = (
            models.UniqueConstraint(
                fields=("minute", "kind", "subject", "word"), name="tallies_once_a_minute"
            ),
        )

    def __str__(self) -> str:
        return f"{self.count} {self.kind} of {self.subject} at {self.minute:%Y-%m-%d %H:%M}"
