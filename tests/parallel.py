"""Several processes of pytest at once (``-n``): what each of them has for itself.

Each process has a virtual host of the broker and a ``VAR_DIR``, made here before it starts; its database
is named after it (``tests/conftest.py``). All of that is gone when the run ends, however it ends.
"""

import json
import os
import re
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from amqp import AMQPError
from kombu import Connection
from xdist.scheduler import LoadScopeScheduling

from tests.rabbitmqctl import ask_broker, remove_virtual_hosts
from tests.servers import START_SECONDS, wait_until

# About half of a run of real workers is waiting, and the other half of the suite runs beside it.
PROCESSES_PER_CORE = 2
MOST = 6  # a test has up to twelve connections to PostgreSQL, which has 100 by default

TIME = re.compile(r"(?:\d{4}-\d{2}-\d{2}[ T])?\d{2}:\d{2}:\d{2}")

# Read by coverage.py when Python starts: workers and commands that a test starts are not measured.
MEASURED = os.environ.pop("COVERAGE_PROCESS_START", None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return how many processes ``-n auto`` means."""
    named = os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS", "")
    return int(named) if named else min(MOST, PROCESSES_PER_CORE * (os.cpu_count() or 1))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: Iterable[Any]) -> None:
    """Give each process a virtual host and a folder, before the first starts."""
    cleanup = ExitStack()
    config.add_cleanup(cleanup.close)
    folder = cleanup.enter_context(
        tempfile.TemporaryDirectory(
            prefix="processes-", dir=os.environ.get("VAR_DIR"), ignore_cleanup_errors=True
        )
    )
    broker = os.environ.get("RABBITMQ_URL", "")
    urls: dict[str, str] = {}
    if broker.startswith("amqp"):
        urls = virtual_hosts(broker, [spec.id for spec in specs], cleanup)
    for spec in specs:
        spec.env["VAR_DIR"] = str(Path(folder) / spec.id)
        if spec.id in urls:
            spec.env["RABBITMQ_URL"] = urls[spec.id]
    if MEASURED:
        os.environ["COVERAGE_PROCESS_START"] = MEASURED  # for these processes, which remove it


def virtual_hosts(broker: str, ids: list[str], cleanup: ExitStack) -> dict[str, str]:
    """Make a virtual host for each process on the broker of a URL; return their URLs.

    Raises:
        UsageError: the broker is not one that ``rabbitmqctl`` controls from here.
    """
    url = urlsplit(broker)
    prefix = f"{url.path.strip('/') or 'booking-test'}-{os.getpid()}-"
    names = {each: prefix + each for each in ids}
    rights = dict.fromkeys(("configure", "write", "read"), ".*")
    user = unquote(url.username or "guest")
    definitions = {
        "vhosts": [{"name": name} for name in names.values()],
        "permissions": [{"user": user, "vhost": name} | rights for name in names.values()],
    }
    cleanup.callback(remove_virtual_hosts, prefix)
    made = ask_broker("import_definitions", "--format", "json", given=json.dumps(definitions))
    urls = {each: url._replace(path=f"/{name}").geturl() for each, name in names.items()}
    try:
        wait_until(
            lambda: all(map(_accepts, urls.values())),
            seconds=START_SECONDS if made is not None else 0,
            what="each process has a virtual host",
        )
    except TimeoutError as error:
        advice = "set PYTEST_XDIST_AUTO_NUM_WORKERS=0 where rabbitmqctl does not control the broker"
        raise pytest.UsageError(f"{error}: {advice}") from None
    return urls


def _accepts(url: str) -> bool:
    with suppress(OSError, AMQPError), Connection(url) as connection:
        connection.connect()
        return True
    return False


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name no test after the time of its collection: all processes must name it alike."""
    if isinstance(val, str) and TIME.search(val):
        return TIME.sub("TIME", val)
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one half of the suite begin with what waits for workers, and the other end with that.

    Both have the same cores: what waits, waits beside something that calculates.
    """
    if not os.environ.get("DATABASE_URL", "").startswith("postgres"):
        items.sort(key=waits)


def waits(item: pytest.Item) -> bool:
    """Return whether a test waits for workers for most of its time."""
    return item.path.parent.name in ("acceptance", "chaos")


class Scheduler(LoadScopeScheduling):
    """Hands out test by test, in their order; those of a module that shares a fixture go together.

    Such a fixture would be set up in each process otherwise. (Marks of ``xdist_group`` are of no use
    with this pytest: xdist 3.8 appends the group to an attribute that pytest 9.2 does not read.)
    """

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return path if shares(self.config.rootpath / path) else nodeid


@cache
def shares(module: Path) -> bool:
    """Return whether a module of tests has a fixture that its tests share."""
    return 'scope="module"' in module.read_text()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduler:
    config.option.loadscopereorder = False
    return Scheduler(config, log)
