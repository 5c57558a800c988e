"""Fixtures that several subjects share."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from stripe import StripeClient

from booking_platform.development.stripe_sandbox import Sandbox, running
from booking_platform.messaging.rules import Consumer
from tests import stripe_clients
from tests.subjects import SUBJECTS, Subject


@pytest.fixture
def admin_client(db: None) -> Client:
    """A superuser's client; unlike pytest-django's, without a password that takes long to hash."""
    client = Client()
    client.force_login(User.objects.create_superuser("admin"))
    return client


@pytest.fixture
def subject(consumer: Consumer) -> Subject:
    """What is special about the consumer, so that the laws need not know it."""
    return SUBJECTS[consumer.queue]()


@pytest.fixture
def payment(stripe: Sandbox) -> str:
    """A payment of 150 euros at the Stripe of the test."""
    return stripe.payment(amount=15_000, currency="eur")


@pytest.fixture
def quick(settings: Any) -> None:
    """Attempts follow each other without a pause."""
    settings.RETRY_BASE_SECONDS = settings.RETRY_MAX_SECONDS = 0.0


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A Stripe of our own, which this process does not use by itself."""
    with running() as sandbox:
        yield sandbox


@pytest.fixture
def api(sandbox: Sandbox) -> StripeClient:
    return stripe_clients.client(sandbox)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(20) as threads:
        yield threads
