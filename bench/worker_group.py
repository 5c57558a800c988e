"""Some workers that are alike, and begin together."""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import mkdtemp

import psutil

from bench.broker import channel
from bench.contenders.platform import CREATED_QUEUE
from booking_platform.development.processes import CeleryProcess, running
from tests.servers import wait_until


class WorkerGroup:
    """Workers of the catalog, each with so many processes in its pool.

    ``env`` is added to their environment; what they write is in ``folder``.
    """

    def __init__(self, folder: Path, count: int, pool: int, *, env: Mapping[str, str]) -> None:
        own = Path(mkdtemp(dir=folder))
        self._metrics = own / "metrics"
        environment = {**env, "PROMETHEUS_MULTIPROC_DIR": str(self._metrics)}
        options = ("-c", str(pool), "-Q", "catalog")
        self.processes = [
            CeleryProcess(own / f"{n}.log", "worker", *options, env=environment)
            for n in range(count)
        ]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the workers for as long as a block runs, which begins when each takes events."""
        with running(*self.processes):
            wait_until(
                lambda: _consumers() == len(self.processes), what="every worker takes events"
            )
            yield

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the workers for as long as a block runs, so that they begin together."""
        mains = [psutil.Process(pid) for pid in self.pids]
        everybody = [*mains, *(child for main in mains for child in main.children())]
        with ExitStack() as stack:
            for each in everybody:
                each.suspend()
                stack.callback(each.resume)
            yield

    @property
    def pids(self) -> list[int]:
        """Return the ids of the main processes."""
        return [each.process.pid for each in self.processes]

    def lost_connections(self) -> bool:
        """Return whether a worker has lost its connection: held for too long, it sends no heartbeats."""
        return any("onnection to broker lost" in each.log for each in self.processes)

    def conflicts(self) -> float:
        """Return how often the workers have lost a race, as they count it themselves."""
        from prometheus_client import CollectorRegistry
        from prometheus_client.multiprocess import MultiProcessCollector

        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(self._metrics))  # type: ignore[no-untyped-call]
        return sum(
            sample.value
            for metric in registry.collect()
            for sample in metric.samples
            if sample.name == "optimistic_lock_conflicts_total"
        )


def _consumers() -> int:
    with channel(os.environ["RABBITMQ_URL"]) as opened:
        return int(opened.queue_declare(CREATED_QUEUE, passive=True).consumer_count)
