"""Fixtures shared by all tests.

The database under test is the one that ``DATABASE_URL`` names; ``make test`` runs the suite on
PostgreSQL and again on SQLite.
"""

import pytest

from booking_platform.messaging.consumers import CONSUMERS, Consumer


@pytest.fixture(params=sorted(CONSUMERS) or ["none"])
def consumer(request: pytest.FixtureRequest) -> Consumer:
    """Every registered consumer in turn: the laws hold for each."""
    return CONSUMERS[request.param]
