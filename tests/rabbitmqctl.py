"""``rabbitmqctl`` on the broker under test."""

import os
import shlex
import shutil
import subprocess


def rabbitmqctl() -> list[str]:
    """Return the command that controls the broker under test; what it is to do follows."""
    return shlex.split(os.environ.get("TEST_RABBITMQCTL", "rabbitmqctl -q"))


def ask_broker(*arguments: str, given: str = "") -> str | None:
    """Run a command on the broker under test; return what it writes, None if it failed."""
    if not shutil.which("rabbitmqctl"):
        return None
    command = [*rabbitmqctl(), *arguments]
    done = subprocess.run(
        command, check=False, capture_output=True, timeout=180, input=given, text=True
    )
    return None if done.returncode else done.stdout


def control_broker(*arguments: str) -> bool:
    """Run a command on the broker under test; return whether it succeeded."""
    return ask_broker(*arguments) is not None


def remove_virtual_hosts(prefix: str) -> None:
    """Remove the virtual hosts whose names begin so from the broker under test."""
    for name in (ask_broker("list_vhosts", "--no-table-headers") or "").splitlines():
        if name.startswith(prefix):
            control_broker("delete_vhost", name)
