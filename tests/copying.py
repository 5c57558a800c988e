"""The test database, migrated by one process of a parallel run and copied by the others."""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection

TEMPLATE = "template"


@contextmanager
def migrated_once(run: str) -> Iterator[None]:
    """Copy the test database from the template of a run before the block.

    The first process has no template: it migrates in the block, and the others wait until it has made one.
    """
    test_name = connection.settings_dict["TEST"]["NAME"]
    folder = Path(settings.VAR_DIR).parent  # of all processes of this half of the suite
    made = folder / f"{TEMPLATE}-of-{connection.vendor}"
    with (folder / "template.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if connection.vendor == "postgresql":
            copy, template = _copy_on_the_server, f"test_booking_{run}_{TEMPLATE}"
        else:
            copy, template = _copy_file, str(made) + ".sqlite3"
        if made.exists():
            fcntl.flock(lock, fcntl.LOCK_UN)
            copy(template, test_name)
            yield
        else:
            yield
            connection.close()
            copy(test_name, template)
            made.touch()


def _copy_on_the_server(source: str, target: str) -> None:
    with connection._nodb_cursor() as cursor:
        cursor.execute(f'CREATE DATABASE "{target}" TEMPLATE "{source}"')


def _copy_file(source: str, target: str) -> None:
    with closing(sqlite3.connect(source)) as read, closing(sqlite3.connect(target)) as written:
        read.backup(written)


def shared_run(config: pytest.Config) -> str | None:
    """Return the name of the run if this is one of the processes of pytest that share it.

    A pytest that a test has started inherits the environment, and has apps of its own: it is none of them.
    """
    return os.environ.get("TEST_RUN") if hasattr(config, "workerinput") else None
