"""Fixtures that several subjects share."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from booking_platform.development.stripe_sandbox import Sandbox


@pytest.fixture
def admin_client(db: None) -> Client:
    """A superuser's client; unlike pytest-django's, without a password that takes long to hash."""
    client = Client()
    client.force_login(User.objects.create_superuser("admin"))
    return client


@pytest.fixture
def payment(stripe: Sandbox) -> str:
    """A payment of 150 euros at the Stripe of the test."""
    return stripe.payment(amount=15_000, currency="eur")


@pytest.fixture
def quick(settings: Any) -> None:
    """Attempts follow each other without a pause."""
    settings.RETRY_BASE_SECONDS = settings.RETRY_MAX_SECONDS = 0.0
