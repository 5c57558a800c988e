"""Virtual hosts that an administrator has set up in another way than RabbitMQ's own."""

import subprocess
from collections.abc import Iterator

import pytest
from celery import current_app

from catalog.models import Tour
from tests.events import cancelled, created
from tests.platform import Platform, assert_adds_up, parked, processed
from tests.servers import RabbitMQ, can_start_rabbitmq

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(not can_start_rabbitmq(), reason="needs RabbitMQ's own binaries"),
]

CREATED = "tour-catalog.booking-created"


@pytest.fixture(scope="module")
def broker() -> Iterator[RabbitMQ]:
    broker = RabbitMQ()
    try:
        yield broker
    finally:
        broker.remove()


@pytest.fixture(params=["classic", "quorum"])
def platform_on_a_vhost(
    request: pytest.FixtureRequest, platform: Platform, broker: RabbitMQ
) -> Platform:
    """The platform on a virtual host where a queue that names no type is of this one."""
    name = f"default-{request.param}"
    for command in (
        ["add_vhost", name, "--default-queue-type", request.param],
        ["set_permissions", "-p", name, "guest", ".*", ".*", ".*"],
    ):
        subprocess.run([*broker.control_command, *command], check=True)
    platform.use_broker(broker.url.removesuffix("/") + name)
    return platform


class TestADefaultQueueType:
    def test_workers_apply_events_and_run_tasks(
        self, platform_on_a_vhost: Platform, tour: Tour
    ) -> None:
        platform = platform_on_a_vhost
        workers = [platform.start("-c", "2") for _ in range(2)]

        platform.publish(created(tour.pk, f"B{n}") for n in range(300))
        platform.wait_for_processed(300, queue=CREATED)
        platform.publish([cancelled(tour.pk, "B0")], key="booking.cancelled")
        platform.publish([b"no event"])
        platform.wait_for(lambda: parked() == [("malformed", "")], "what is no event is parked")
        platform.wait_for(lambda: processed() == 301, "the cancellation is processed")
        with platform.connection() as connection:
            current_app.send_task("messaging.cleanup", connection=connection)
        platform.wait_for(
            lambda: any("Cleanup: processed events" in each.log for each in workers),
            "a task is run",
        )

        assert_adds_up(tour)
        assert tour.reserved_seats == 299
        assert [worker.process.poll() for worker in workers] == [None, None]
