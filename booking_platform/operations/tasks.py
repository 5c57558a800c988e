"""The tasks of operations, on the queue ``maintenance``; and what each process of a worker does beside them."""

from typing import Any

import structlog
from celery import shared_task, signals

from booking_platform.messaging import broker, clock, leases, sweeps
from booking_platform.messaging.leases import Conclusion
from booking_platform.messaging.relaying import RELAY
from booking_platform.operations import auditing, bulk, tallies
from booking_platform.operations.models import BulkJob
from booking_platform.operations.tallying import WRITER

log = structlog.get_logger(__name__)


@shared_task(name="operations.audit")
def audit() -> None:
    """Look for what breaks a promise."""
    auditing.run()


@shared_task(name="operations.bulk_job")
def bulk_job(pk: int, after: int | None = None) -> None:
    """Carry out a part of a bulk job, and ask for the next.

    ``after`` is the number of the part before: where another worker has done the next one meanwhile, it
    asks for those that follow.
    """
    jobs = BulkJob.objects.filter(pk=pk, finished_at__isnull=True)
    taken: list[BulkJob] = []

    def attempt(job: BulkJob) -> Conclusion:
        taken.append(job)
        return bulk.attempt(job)

    leases.take_up(jobs if after is None else jobs.filter(attempts=after), attempt)
    RELAY.nudge()
    for job in taken:
        if leases.due(jobs, clock.now()).exists():
            bulk_job.delay(pk, job.attempts)


def begin(job: BulkJob) -> None:
    """Ask a worker for a job at once. Where the broker is away, the next sweep asks."""
    try:
        with broker.connection_to_publish() as connection:
            bulk_job.apply_async((job.pk,), connection=connection, retry=False)  # type: ignore[call-arg]  # as Celery documents
    except broker.UNREACHABLE as error:
        log.warning("A bulk job waits for the next sweep", job=job.pk, error=str(error))


@shared_task(name="operations.sweep_bulk_jobs")
def sweep_bulk_jobs() -> None:
    """Ask for bulk jobs whose worker is gone, or that wait for a broker."""
    sweeps.sweep(BulkJob, bulk_job, None)


@shared_task(name="operations.count_outcomes")
def count_outcomes() -> None:
    """Count the outcomes of the minutes that are over."""
    tallies.count_outcomes()


@signals.worker_process_init.connect  # of a pool that forks, and of one that does all by itself
@signals.worker_ready.connect  # of threads
def _store_what_is_counted(**_: Any) -> None:
    WRITER.enable()


@signals.task_prerun.connect
def _store_tallies(**_: Any) -> None:
    WRITER.begin()


@signals.worker_process_shutdown.connect  # of a pool that forks
@signals.worker_shutdown.connect  # of one that does all in one process
def _store_the_last_tallies(**_: Any) -> None:
    WRITER.end()
