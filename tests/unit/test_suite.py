"""``tests/run``, which runs the suite twice: on the servers, and on the embedded default."""

import os
import subprocess

import pytest
from django.conf import settings

NOBODY = {
    "TEST_DATABASE_URL": "postgres://nobody@127.0.0.1:9/none",
    "TEST_RABBITMQ_URL": "amqp://127.0.0.1:9/",
}
NONE_SELECTED = 5  # pytest's exit status


@pytest.mark.parametrize(
    ("selection", "status"),
    [
        (["tests/chaos/test_database_outage.py"], 0),
        (["tests/unit/test_backoff.py", "-k", "no_such_test"], NONE_SELECTED),
    ],
    ids=["one run has", "none has"],
)
def test_it_fails_only_if_neither_run_has_a_test(selection: list[str], status: int) -> None:
    ended = subprocess.run(
        ["tests/run", "--collect-only", "-q", *selection],
        cwd=settings.BASE_DIR,
        env=os.environ | NOBODY,
        check=False,
        capture_output=True,
    )

    assert ended.returncode == status, ended.stdout + ended.stderr
