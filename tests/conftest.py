"""Fixtures shared by all tests.

The database and the broker under test are those that ``DATABASE_URL`` and ``RABBITMQ_URL`` name;
``make test`` runs the suite on PostgreSQL and RabbitMQ, and again on the embedded default; each process
of a parallel run has its own (``tests/parallel.py``).
"""

import gc
import os
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from django.conf import settings
from django.db import connection
from django.test import TransactionTestCase, override_settings
from pytest_django import DjangoDbBlocker

from booking_platform.development import mail_server as mail_servers
from booking_platform.development.mail_server import MailServer
from booking_platform.development.stripe_sandbox import Sandbox, running
from booking_platform.messaging import contention
from booking_platform.messaging.rules import CONSUMERS, Consumer
from catalog import web_shop  # noqa: F401  # its consumer is held to the laws, too
from catalog.models import Tour
from notifications import smtp
from tests import telemetry
from tests.copying import migrated_once, shared_run
from tests.emptying import empty_quickly
from tests.factories import TourFactory
from tests.pgbouncer import PgBouncer, can_start_pgbouncer
from tests.platform import Platform
from tests.sessions import database_url

pytest_plugins = ["tests.parallel"]

# A loaded machine is slow, and not wrong; what CI has (Hypothesis sees that it is one) stays.
hypothesis.settings.register_profile(
    "patient",
    hypothesis.settings.default,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("patient")

NOBODY = "http://127.0.0.1:9"
NUMBERS = count()

# Thousands of tests are known to pytest all the time, and none of what their collection makes is garbage:
# without this it takes a sixth more of CPU time, and the tests 5 % more.
gc.disable()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None) -> None:
    """Name the test database after this process. SQLite's is a file, which workers can open too."""
    name = f"test_booking_{os.environ.get('TEST_RUN', 'by_hand')}_{os.getpid()}"
    test = connection.settings_dict["TEST"]
    test["NAME"] = str(settings.VAR_DIR / name) if connection.vendor == "sqlite" else name


@pytest.fixture(scope="session")
def django_db_keepdb() -> bool:
    """Leave the test database to ``tests.servers``, which removes all of a run at its end.

    To drop one makes PostgreSQL write all that it holds, for longer than the platform's limit on a statement
    allows where other processes go on testing.
    """
    return "TEST_RUN" in os.environ


@pytest.fixture(scope="session")
def _copied(
    request: pytest.FixtureRequest,
    django_db_modify_db_settings: None,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[ExitStack]:
    """Copy the database before `django_db_setup` migrates it; to close the stack ends that."""
    with ExitStack() as stack:
        if run := shared_run(request.config):
            with django_db_blocker.unblock():
                stack.enter_context(migrated_once(run))
        yield stack


@pytest.fixture(scope="session")
def django_db_setup(
    _copied: ExitStack, django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> None:
    with django_db_blocker.unblock():
        _copied.close()


@pytest.fixture(scope="session", autouse=True)
def _quick_to_empty() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(TransactionTestCase, "_fixture_teardown", empty_quickly)
        yield


@pytest.fixture(scope="session", autouse=True)
def _settings_of_tests() -> Iterator[None]:
    """Who needs a Stripe asks for `stripe`; a password's hash takes as long as a hundred tests."""
    quick = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    with override_settings(STRIPE_API_BASE=NOBODY, PASSWORD_HASHERS=quick):
        yield


@pytest.fixture
def stripe(settings: Any) -> Iterator[Sandbox]:
    """A Stripe of our own, for this process and for the workers of `platform`."""
    with running() as sandbox:
        settings.STRIPE_API_BASE = sandbox.url
        yield sandbox


@pytest.fixture(autouse=True)
def _no_race_was_lost() -> None:
    contention.forget()


@pytest.fixture(autouse=True)
def _mails_into_a_folder(settings: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each test has its own, which the first mail makes; who needs a mail server asks for `mail_server`."""
    settings.MAIL_DIR = tmp_path_factory.getbasetemp() / f"mail-{next(NUMBERS)}"


@pytest.fixture
def mail_server(settings: Any) -> Iterator[MailServer]:
    """A mail server of our own, for this process. A silent one costs ``SMTP_TIMEOUT_SECONDS``."""
    with mail_servers.running() as server:
        settings.SMTP_HOST, settings.SMTP_PORT = "127.0.0.1", server.port
        settings.SMTP_SECURITY = "none"
        yield server
        smtp.hang_up()


@pytest.fixture(params=sorted(CONSUMERS))
def consumer(request: pytest.FixtureRequest) -> Consumer:
    """Every registered consumer in turn: the laws hold for each."""
    return CONSUMERS[request.param]


@pytest.fixture(params=telemetry.WAYS)
def broken_telemetry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Metrics or logs that are broken, in each way in turn: what they tell of must not change."""
    with telemetry.broken(request.param, tmp_path):
        yield request.param


@pytest.fixture
def platform(transactional_db: None, tmp_path: Path) -> Iterator[Platform]:
    """Real workers on the database and the broker under test."""
    metrics = tmp_path / "metrics"
    metrics.mkdir()
    platform = Platform(tmp_path)
    platform.environment["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)
    platform.environment["STRIPE_API_BASE"] = NOBODY
    platform.delete_queues()
    platform.declare()
    try:
        yield platform
    finally:
        platform.close()


@pytest.fixture(params=["session", "transaction"])
def bouncer(request: pytest.FixtureRequest, transactional_db: None) -> Iterator[PgBouncer]:
    """PgBouncer before the database under test, in each of its modes."""
    fewer_than_clients = {"default_pool_size": 3} if request.param == "transaction" else {}
    yield from _bouncer(request.param, **fewer_than_clients)


@pytest.fixture
def transaction_bouncer(transactional_db: None) -> Iterator[PgBouncer]:
    """PgBouncer before the database under test, with one server connection for all clients."""
    yield from _bouncer("transaction", default_pool_size=1, query_wait_timeout=1)


def _bouncer(mode: str, **options: object) -> Iterator[PgBouncer]:
    if not can_start_pgbouncer():
        problem = "needs PgBouncer, which could not be installed"
        pytest.fail(problem) if os.environ.get("CI") == "true" else pytest.skip(problem)
    bouncer = PgBouncer(database_url(), mode=mode, **options)
    try:
        yield bouncer
    finally:
        bouncer.remove()


@pytest.fixture
def tour(transactional_db: None) -> Tour:
    return TourFactory.create(capacity=100_000)
