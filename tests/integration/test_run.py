"""Who may log in after `make run`: a known password is in the embedded database and in no other."""

from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.db import connection
from django.test import RequestFactory

from booking_platform.development.management.commands import run

pytestmark = pytest.mark.django_db


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    """The database under test stands for the one that is made where none is named."""
    if connection.vendor != "sqlite":
        pytest.skip("the embedded database is SQLite")
    monkeypatch.setitem(
        connection.settings_dict, "NAME", str(Path(settings.VAR_DIR) / run.EMBEDDED_NAME)
    )


def can_log_in(name: str, password: str) -> bool:
    return authenticate(RequestFactory().get("/"), username=name, password=password) is not None


class TestTheEmbeddedDatabase:
    def test_it_has_a_user_that_everybody_knows(self, embedded: None) -> None:
        assert run.who_may_log_in() == run.who_may_log_in() == "'admin', 'admin'"
        assert can_log_in("admin", "admin")


class TestAnotherDatabase:
    def test_it_gets_no_user(self) -> None:
        assert "createsuperuser" in run.who_may_log_in()
        assert not User.objects.exists()

    def test_it_keeps_its_own(self) -> None:
        User.objects.create_superuser("admin", password="a-good-password-1")
        assert run.who_may_log_in() == "with a user of this database"
        assert can_log_in("admin", "a-good-password-1")

    def test_a_known_password_that_is_there_already_is_replaced(self) -> None:
        User.objects.create_superuser("admin", password="admin")
        said = run.who_may_log_in()
        assert not can_log_in("admin", "admin")
        [password] = [word for word in said.split("'") if can_log_in("admin", word)]
        assert len(password) >= 16
        assert password not in run.who_may_log_in()

    def test_a_file_elsewhere_is_another(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setitem(connection.settings_dict, "NAME", str(tmp_path / run.EMBEDDED_NAME))
        assert not run.is_embedded()
