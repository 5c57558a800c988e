"""What most projects would write: a Celery task for each event, with one transaction each.

``celery -A bench.contenders.celery_task worker`` consumes ``bench-per-event``. It does the same work for an
event as the platform (claim, compare-and-set of the tour, reservation) through Django's ORM.
``KEEP_CONNECTIONS=1`` keeps Celery from closing the database connection around each task.
"""

import os
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "booking_platform.settings")

from celery import Celery, signals

QUEUE, TASK = "bench-per-event", "bench.booking_created"

app = Celery("bench.contenders.celery_task")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.update(task_default_queue=QUEUE, task_queues=None, task_routes=None, beat_schedule={})
if os.environ.get("KEEP_CONNECTIONS"):
    app.conf["CELERY_DB_REUSE_MAX"] = 2**31


@signals.setup_logging.connect
def _keep_our_logging(**_: object) -> None: ...


@app.task(
    name=TASK,
    acks_late=True,
    autoretry_for=(BlockingIOError,),
    retry_backoff=False,
    default_retry_delay=0,
    max_retries=None,
)
def booking_created(event: dict[str, Any]) -> None:
    """Apply one event."""
    from django.db import IntegrityError, transaction

    try:
        with transaction.atomic():
            _claim(event)
            _reserve(event)
    except IntegrityError:
        return  # a duplicate


def _claim(event: dict[str, Any]) -> None:
    from booking_platform.messaging.models import ProcessedEvent

    ProcessedEvent.objects.create(
        event_id=event["eventId"],
        consumer=QUEUE,
        event_type=event["eventType"],
        aggregate_id=event["payload"]["bookingId"],
        outcome="reserved",
        occurred_at=event["timestamp"],
    )


def _reserve(event: dict[str, Any]) -> None:
    from django.db.models import F
    from django.utils import timezone

    from catalog.models import Reservation, Tour

    payload, now = event["payload"], timezone.now()
    tour = Tour.objects.get(pk=payload["tourId"])
    if tour.available_seats < payload["seatsBooked"]:
        return
    updated = Tour.objects.filter(
        pk=tour.pk, optimistic_lock_version=tour.optimistic_lock_version
    ).update(
        available_seats=tour.available_seats - payload["seatsBooked"],
        reserved_seats=F("reserved_seats") + payload["seatsBooked"],
        optimistic_lock_version=F("optimistic_lock_version") + 1,
    )
    if not updated:
        raise BlockingIOError("lost the race")
    Reservation.objects.create(
        booking_id=payload["bookingId"],
        tour_id=tour.pk,
        seats=payload["seatsBooked"],
        state="reserved",
        created_event_id=event["eventId"],
        created_at=now,
        updated_at=now,
    )
