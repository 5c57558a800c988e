"""What most projects would write: a Celery task for each event, with one transaction each.

``celery -A bench.per_event worker`` consumes ``bench-per-event``. It does the same work for an
event as the platform (claim, compare-and-set of the tour, reservation) through Django's ORM.
``KEEP_CONNECTIONS=1`` keeps Celery from closing the database connection around each task.
"""

import os
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "booking_platform.settings")

from celery import Celery, signals

app = Celery("bench.per_event")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.update(
    task_default_queue="bench-per-event", task_queues=None, task_routes=None, beat_schedule={}
)
if os.environ.get("KEEP_CONNECTIONS"):
    app.conf["CELERY_DB_REUSE_MAX"] = 2**31


@signals.setup_logging.connect
def _keep_our_logging(**_: object) -> None: ...


@app.task(
    name="bench.booking_created",
    acks_late=True,
    autoretry_for=(BlockingIOError,),
    retry_backoff=False,
    default_retry_delay=0,
    max_retries=None,
)
def booking_created(event: dict[str, Any]) -> None:
    from django.db import IntegrityError, transaction
    from django.db.models import F
    from django.utils import timezone

    from booking_platform.messaging.models import ProcessedEvent
    from catalog.models import Reservation, Tour

    payload, now = event["payload"], timezone.now()
    try:
        with transaction.atomic():
            ProcessedEvent.objects.create(
                event_id=event["eventId"],
                consumer="bench-per-event",
                event_type=event["eventType"],
                aggregate_id=payload["bookingId"],
                outcome="reserved",
            )
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
    except IntegrityError:
        return  # a duplicate
