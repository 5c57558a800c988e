"""Fixtures shared by all tests.

The database and the broker under test are those that ``DATABASE_URL`` and ``RABBITMQ_URL`` name;
``make test`` runs the suite on PostgreSQL and RabbitMQ, and again on the embedded default.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection

from booking_platform.celery import app
from booking_platform.messaging.consumers import CONSUMERS, Consumer
from booking_platform.messaging.topology import EVENT_QUEUES
from tests.factories import TourFactory
from tests.platform import Platform


@pytest.fixture(scope="session", autouse=True)
def _registered_consumers() -> None:
    """Import every app's tasks, as a worker does at start."""
    app.loader.import_default_modules()


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None) -> None:
    """Give each run a database of its own, and SQLite's a file, which workers can open too."""
    name = f"test_booking_{os.getpid()}"
    test = connection.settings_dict["TEST"]
    test["NAME"] = str(settings.VAR_DIR / name) if connection.vendor == "sqlite" else name


@pytest.fixture(params=[queue.name for queue in EVENT_QUEUES if queue.task_queue == "catalog"])
def consumer(request: pytest.FixtureRequest) -> Consumer:
    """Every registered consumer in turn: the laws hold for each."""
    return CONSUMERS[request.param]


@pytest.fixture
def platform(transactional_db: None, tmp_path: Path) -> Iterator[Platform]:
    """Real workers on the database and the broker under test."""
    metrics = tmp_path / "metrics"
    metrics.mkdir()
    platform = Platform(tmp_path)
    platform.environment["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)
    platform.delete_queues()
    platform.declare()
    try:
        yield platform
    finally:
        platform.close()


@pytest.fixture
def tour(transactional_db: None) -> object:
    return TourFactory(capacity=100_000)
