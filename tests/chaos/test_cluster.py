"""A cluster of three brokers, one of which dies: nobody waits for longer than it takes to connect."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from amqp import AMQPError
from celery import current_app

from catalog.models import Tour
from tests.events import created
from tests.platform import Platform, assert_adds_up, parked
from tests.servers import RabbitMQ


@pytest.fixture
def nodes() -> Iterator[list[RabbitMQ]]:
    with ExitStack() as stack:
        first = RabbitMQ()
        stack.callback(first.remove)
        found = [first]
        for _ in range(2):
            found.append(RabbitMQ(cluster_of=first))
            stack.callback(found[-1].remove)
        yield found


@pytest.fixture
def clustered(
    nodes: list[RabbitMQ], transactional_db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Platform]:
    url = ";".join(node.url for node in nodes)
    for name in ("broker_url", "broker_read_url", "broker_write_url"):
        monkeypatch.setattr(current_app.conf, name, url)
    platform = Platform(tmp_path)
    platform.environment |= {"RABBITMQ_URL": url, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    platform.declare()
    yield platform
    for worker in platform.workers:
        worker.kill()


def publish_until_confirmed(platform: Platform, events: list[dict[str, Any]]) -> None:
    """Publish as a producer should: what the broker has not confirmed is sent again."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return platform.publish(events, patience=2)
        except (OSError, AMQPError):
            assert time.monotonic() < deadline


def manage(platform: Platform, *arguments: str) -> None:
    command = [sys.executable, "manage.py", *arguments]
    environment = os.environ | platform.environment
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.servers
class TestADeadNode:
    def test_the_others_go_on(self, clustered: Platform, nodes: list[RabbitMQ], tour: Tour) -> None:
        clustered.start("-c", "2")
        clustered.start_beat(SWEEP_SECONDS="1")
        clustered.publish(created(tour.pk, f"A{n}") for n in range(100))
        clustered.wait_for_processed(100)

        nodes[0].kill()
        begun = time.monotonic()
        publish_until_confirmed(clustered, [created(tour.pk, f"B{n}") for n in range(100)])
        clustered.wait_for_processed(
            200, seconds=60
        )  # without its URL list: 65 and more, again and again
        print(f"resumed {time.monotonic() - begun:.1f} s after the death of a node")

        event = created(tour.pk, "C")
        code = f"from catalog.tasks import booking_created; booking_created.delay({event})"
        manage(clustered, "publish_event", "booking.created", "--tour", str(tour.pk))
        manage(clustered, "shell", "-c", code)
        clustered.wait_for_processed(202)
        beat = clustered.workers[1]
        sent = beat.log.count("Sending due task")
        clustered.wait_for(lambda: beat.log.count("Sending due task") > sent + 1, "beat sends")
        assert parked() == []
        assert_adds_up(tour)
