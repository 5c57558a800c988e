"""Several processes of pytest: what they must agree on."""

from pathlib import Path

import pytest
from django.conf import settings

from tests.parallel import pytest_make_parametrize_id, shares

TESTS = settings.BASE_DIR / "tests"


class TestNames:
    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ("under way until 23:19:52 UTC", "under way until 23:19:55 UTC"),
            ("due at 2026-11-26 23:59:59 UTC: 451", "due at 2026-11-27 00:00:00 UTC: 451"),
        ],
        ids=["a time", "a date and a time"],
    )
    def test_they_do_not_say_when_they_were_collected(self, first: str, second: str) -> None:
        assert pytest_make_parametrize_id(first) == pytest_make_parametrize_id(second) is not None

    @pytest.mark.parametrize("value", ["booking.created", 5, None])
    def test_others_are_pytests_own(self, value: object) -> None:
        assert pytest_make_parametrize_id(value) is None


class TestSharedFixtures:
    @pytest.mark.parametrize(
        ("module", "shared"),
        [("acceptance/test_adding_a_consumer.py", True), ("acceptance/test_worker.py", False)],
    )
    def test_a_module_that_has_one_stays_together(self, module: str, shared: bool) -> None:
        assert shares(Path(TESTS / module)) is shared
