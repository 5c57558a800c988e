"""What is there for development, and must not be there in production."""

import os
import subprocess
import sys
from secrets import token_urlsafe

import pytest

PRODUCTION = {
    "DJANGO_ENV": "production",
    "DATABASE_URL": "postgres://nobody@127.0.0.1:9/none",
    "RABBITMQ_URL": "amqp://127.0.0.1:9/",
    "DJANGO_SECRET_KEY": token_urlsafe(60),
    "DJANGO_ALLOWED_HOSTS": "example.com",
}


def run(*command: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
    )


class TestProduction:
    @pytest.mark.parametrize("command", ["demo", "run", "stripe_sandbox"])
    def test_it_has_no_command_of_development(self, command: str) -> None:
        ended = run("manage.py", command, **PRODUCTION)
        assert ended.returncode == 1
        assert f"Unknown command: '{command}'" in ended.stderr

    def test_it_can_not_import_what_stands_in_for_servers(self) -> None:
        module = "booking_platform.development.embedded_broker"
        ended = run("-c", f"import {module}", **PRODUCTION)
        assert ended.returncode == 1
        assert "booking_platform.development is not for production" in ended.stderr


class TestTheDemo:
    def test_it_says_which_requirement_is_missing(self, tmp_path: os.PathLike[str]) -> None:
        hidden = "import sys; sys.modules['aiosmtpd'] = None; sys.argv = ['manage.py', 'demo']"
        start = "exec(open('manage.py').read())"
        ended = run("-c", f"{hidden}; {start}", VAR_DIR=str(tmp_path))
        assert ended.returncode == 1
        assert ended.stderr.strip().startswith("CommandError: The demo needs aiosmtpd")
        assert "requirements-dev.txt" in ended.stderr
