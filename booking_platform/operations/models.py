from django.db import models

from booking_platform.messaging import clock


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
        return f"{self.started_at:%Y-%m-%d %H:%M}: {self.found} findings"

    @property
    def age_seconds(self) -> float:
        """Seconds since it ended."""
        return max(0.0, (clock.now() - self.finished_at).total_seconds())

    @classmethod
    def newest(cls) -> "AuditRun | None":
        """Return the last run; None if there was none."""
        return cls.objects.order_by("-pk").first()
