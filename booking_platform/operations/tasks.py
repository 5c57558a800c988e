"""The tasks of operations, on the queue ``maintenance``."""

from celery import shared_task

from booking_platform.operations import auditing


@shared_task(name="operations.audit")
def audit() -> None:
    """Look for what breaks a promise."""
    auditing.run()
