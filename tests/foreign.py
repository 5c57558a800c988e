"""The programs of docs/examples, run as a team would that has nothing but the published contract."""

import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import pytest
from django.conf import settings

from booking_platform import servers
from booking_platform.development.processes import PythonProcess
from tests.nodes import node
from tests.servers import control_broker, rabbitmqctl

EXAMPLES: Path = settings.BASE_DIR / "docs" / "examples"
USERS = {
    ("python", "producer"): "shop",
    ("node", "producer"): "shop",
    ("python", "listener"): "warehouse",
    ("node", "listener"): "web",
}
QUEUES = ("shop.outcomes", "warehouse.announcements", "web.announcements")
LANGUAGES = ("python", "node")


class Said(NamedTuple):
    """What a producer has heard of its event."""

    status: int
    event_type: str
    payload: dict[str, Any]


def program(language: str, name: str) -> list[str]:
    """Return the command of a program, which finds all that it needs."""
    folder = EXAMPLES / language
    if language == "python":
        return [sys.executable, str(folder / f"{name}.py")]
    return [node(folder), str(folder / f"{name}.js")]


@contextmanager
def users() -> Iterator[None]:
    """Make the users of docs/producers-and-listeners.md, with the rights that it gives them."""
    if not shutil.which(rabbitmqctl()[0]):
        pytest.skip("rabbitmqctl makes the users")
    text = (settings.BASE_DIR / "docs" / "producers-and-listeners.md").read_text()
    commands = re.findall(r"^    rabbitmqctl (set_.*)$", text, re.MULTILINE)
    vhost = unquote(urlsplit(servers.broker_url()).path[1:])
    try:
        for user in set(USERS.values()):
            assert control_broker("add_user", _name(user), "secret")
        for command, option, _, user, *rights in map(shlex.split, commands):
            for ours in {user, *({"web"} if user == "warehouse" else ())}:
                named = [right.replace(user, ours) for right in rights]
                assert control_broker(command, option, vhost, _name(ours), *named)
        yield
    finally:
        for user in set(USERS.values()):
            control_broker("delete_user", _name(user))


def _name(user: str) -> str:
    return f"{user}-{os.getpid()}"


def environment(language: str, name: str) -> dict[str, str]:
    """Return all that a program is told: a user of the broker with no more rights than it needs."""
    url = urlsplit(servers.broker_url())
    host = url.netloc.rpartition("@")[2]
    netloc = f"{_name(USERS[language, name])}:secret@{host}"
    return {"PATH": os.environ["PATH"], "RABBITMQ_URL": url._replace(netloc=netloc).geturl()}


def book(language: str, booking: str, tour: int, seats: int, *, wait: float = 30) -> Said:
    """Have a producer book seats; return what it has heard."""
    options = {"--booking": booking, "--tour": tour, "--seats": seats, "--wait": wait}
    command = program(language, "producer")
    for option in options.items():
        command += map(str, option)
    done = subprocess.run(
        command,
        env=environment(language, "producer"),
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode in (0, 1, 2), done.stderr
    assert not done.stderr, done.stderr
    event_type, _, payload = done.stdout.partition(" ")
    if done.returncode == 2:
        return Said(2, "", {})
    return Said(done.returncode, event_type, json.loads(payload))


class Listener(PythonProcess):
    """A listener of either language, with its state."""

    def __init__(self, language: str, folder: Path) -> None:
        super().__init__(log_file=folder / f"{language}.log", env=environment(language, "listener"))
        self._language, self._state = language, folder / f"state-of-{language}"
        self._command = (*program(language, "listener"), str(self._state))

    @property
    def tours(self) -> dict[int, tuple[int, ...]]:
        """Return capacity, available, reserved, overbooked and version of each tour that it knows."""
        names = ("capacity", "available", "reserved", "overbooked", "version")
        if self._language == "python":
            rows = self._rows(f"SELECT tour_id, {', '.join(names)} FROM tours")
            return {row[0]: tuple(row[1:]) for row in rows}
        return {
            int(tour_id): tuple(tour[name] for name in names)
            for tour_id, tour in self._json().get("tours", {}).items()
        }

    @property
    def refunds(self) -> dict[tuple[str, str, int], tuple[str, Decimal, str | None]]:
        """Return status, amount and currency of each refund that it knows."""
        if self._language == "python":
            rows = self._rows(
                "SELECT booking_id, payment_id, seats_remaining, status, amount, currency FROM refunds"
            )
            return {tuple(row[:3]): (row[3], Decimal(row[4]), row[5]) for row in rows}
        return {
            tuple(json.loads(key)): (
                refund["status"],
                Decimal(refund["amount"]),
                refund["currency"],
            )
            for key, refund in self._json().get("refunds", {}).items()
        }

    def _rows(self, sql: str) -> list[Any]:
        if not self._state.exists():
            return []
        with sqlite3.connect(self._state) as database:
            try:
                return database.execute(sql).fetchall()
            except sqlite3.OperationalError:  # just started: no table yet
                return []

    def _json(self) -> dict[str, Any]:
        if not self._state.exists():
            return {}
        found: dict[str, Any] = json.loads(self._state.read_text(), parse_float=Decimal)
        return found
