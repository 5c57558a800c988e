"""A real worker on the servers under test, started, watched and killed as an operator could."""

import fcntl
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import psutil
from celery import current_app
from django.db import connection

from booking_platform.development.processes import CeleryProcess
from booking_platform.messaging import broker, topology
from booking_platform.messaging.models import DeadLetter, ProcessedEvent
from booking_platform.messaging.rules import CONSUMERS
from catalog.models import Reservation, Tour
from tests.events import body
from tests.nursery import Forked
from tests.servers import PATIENCE, wait_until
from tests.sessions import database_url

SMALL_PIPE = 4096  # bytes


class Worker(CeleryProcess):
    """A worker, and the processes of its pool; or beat. It is forked where Python itself has nothing to read."""

    def _begun(self, env: Mapping[str, str], output: IO[bytes] | None) -> Any:
        if output is None or any(name.startswith("PYTHON") for name in self._env):
            return super()._begun(env, output)
        _python, _m, module, *given = self._command
        return Forked(module, *given, env=env, output=output)

    def pool(self) -> list[psutil.Process]:
        """Return the processes of the pool; a worker has no other children."""
        children: list[psutil.Process] = psutil.Process(self.process.pid).children()
        return children


class Unheard(Worker):
    """A worker or beat whose standard streams are broken, from its start or from ``hang_up`` on."""

    def __init__(self, redirection: str, *command: str, env: dict[str, str]) -> None:
        super().__init__(Path(os.devnull), *command, env=env)
        self._redirection = redirection
        self._reader: int | None = None

    def start(self) -> None:
        self._reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, SMALL_PIPE)  # so that it is soon full
        self.process = subprocess.Popen(
            ["sh", "-c", f'exec "$@" {self._redirection}', "sh", *self._command],
            env=os.environ | self._env,
            stdout=writer,
            stderr=writer,
            start_new_session=True,
        )
        os.close(writer)

    def hang_up(self) -> None:
        """Leave the pipe to which it writes without a reader."""
        if self._reader is not None:
            os.close(self._reader)
            self._reader = None

    def kill(self) -> None:
        self.hang_up()
        super().kill()


class Platform:
    """The database under test, the broker under test, and workers on both."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workers: list[Worker] = []
        self._broker_url: str | None = None  # the one under test
        self.environment = {"DATABASE_URL": self._database_url(), "OUTAGE_MAX_SECONDS": "0.5"}

    @staticmethod
    def _database_url() -> str:
        database = connection.settings_dict
        if connection.vendor == "sqlite":
            return f"sqlite:///{database['NAME']}"
        return database_url()

    def use_broker(self, url: str) -> None:
        """Use another broker than the one under test, for workers and for what is published."""
        self._broker_url = self.environment["RABBITMQ_URL"] = url

    def connection(self) -> Any:
        return current_app.connection_for_write(self._broker_url)

    def start(
        self, *options: str, app: str = "booking_platform", wait: bool = True, **env: str
    ) -> Worker:
        worker = self._celery("worker", *(options or ("-c", "2")), app=app, env=env)
        if wait:
            worker.wait_until_ready()
        return worker

    def start_unheard(self, redirection: str, *command: str, **env: str) -> Unheard:
        """Start a process of whose start nothing can be read; the shell redirects what it writes."""
        process = Unheard(redirection, *command, env=self.environment | env)
        self.workers.append(process)
        process.start()
        return process

    def start_beat(self, **env: str) -> None:
        schedule = str(self.folder / "schedule")
        self._celery("beat", "-s", schedule, app="booking_platform", env=env)

    def _celery(self, *command: str, app: str, env: dict[str, str]) -> Worker:
        log = self.folder / f"process-{len(self.workers)}.log"
        process = Worker(log, *command, app=app, env=self.environment | env)
        self.workers.append(process)
        process.start()
        return process

    @contextmanager
    def channel(self) -> Iterator[Any]:
        with self.connection() as connection, connection.channel() as channel:
            yield channel

    def declare(self) -> None:
        with self.connection() as connection:
            broker.declare(connection)

    def delete_queues(self) -> None:
        names = [*CONSUMERS, topology.dead_letter_queue().name, topology.unroutable_queue().name]
        with suppress(Exception), self.connection() as connection:
            for name in (*names, *topology.task_queues()):
                # A channel each: an error closes it.
                with suppress(Exception), connection.channel() as channel:
                    channel.queue_delete(name)

    def delete_queue(self, name: str) -> None:
        with suppress(Exception), self.channel() as channel:
            channel.queue_delete(name)

    def publish(
        self,
        events: Iterable[dict[str, Any] | bytes],
        *,
        key: str = "booking.created",
        headers: dict[str, Any] | None = None,
        patience: float = PATIENCE,
    ) -> None:
        """Publish as a foreign producer: plain bytes, no content type, no Celery headers.

        Confirmed: what a producer sends just before it closes its channel may be lost otherwise.
        """
        confirmed: set[int] = set()
        sent = 0
        with self.channel() as channel:
            if hasattr(channel, "confirm_select"):
                channel.confirm_select()
                channel.events["basic_ack"].add(
                    lambda tag, multiple: confirmed.update(range(1, tag + 1) if multiple else [tag])
                )
            for event in events:
                raw = event if isinstance(event, bytes) else body(event)
                message = channel.prepare_message(
                    raw, headers=headers or {}, properties={"delivery_mode": 2}
                )
                channel.basic_publish(message, exchange="booking-events", routing_key=key)
                sent += 1
            while hasattr(channel, "confirm_select") and len(confirmed) < sent:
                channel.connection.drain_events(timeout=patience)

    def wait_for(self, condition: Any, what: str, seconds: float = PATIENCE) -> None:
        try:
            wait_until(condition, seconds=seconds, what=what)
        except TimeoutError as error:
            logs = "\n".join(worker.log[-3000:] for worker in self.workers)
            raise AssertionError(f"{error}\n{logs}") from None

    def wait_for_processed(self, count: int, *, queue: str = "", seconds: float = PATIENCE) -> None:
        def there() -> bool:
            return processed(queue) >= count

        self.wait_for(there, f"{count} events processed", seconds)

    def close(self) -> None:
        with ExitStack() as stack:
            for worker in self.workers:
                stack.callback(worker.kill)
        self.delete_queues()


def processed(queue: str = "") -> int:
    return ProcessedEvent.objects.filter(consumer__startswith=queue or "tour-catalog.").count()


def parked() -> list[tuple[str, str]]:
    """Return reason and event id of every open dead letter."""
    return sorted(DeadLetter.objects.filter(state="parked").values_list("reason", "event_id"))


def assert_adds_up(tour: Tour) -> None:
    """The tour's numbers are those of its ledger."""
    tour.refresh_from_db()
    held = tour.reservations.filter(state=Reservation.State.RESERVED)
    assert tour.reserved_seats == sum(held.values_list("seats", flat=True))
    sold = tour.reserved_seats + max(0, tour.unledgered_seats)
    assert tour.available_seats == max(0, tour.capacity - sold)


def counter(environment: dict[str, str], name: str) -> float:
    """Sum a counter over all processes that share the metrics' folder."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    folder = environment["PROMETHEUS_MULTIPROC_DIR"]
    MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]  # it has no types
    return sum(
        sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == name
    )
