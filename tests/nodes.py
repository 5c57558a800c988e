"""Programs in Node.js: what they need is installed at first use, by their lock file, and kept in the clone."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

TESTS = Path(__file__).parent / "node"
INSTALL_SECONDS = 300


def node(folder: Path) -> str:
    """Return the path of Node.js, when all packages that a folder's lock file names are there.

    Where that can't be, the test is skipped; in CI it fails.
    """
    program = shutil.which("node")
    problem = "needs Node.js and npm" if not program or not shutil.which("npm") else ""
    if problem := problem or _install(folder):
        skipping = os.environ.get("CI") != "true" or os.environ.get("WITHOUT_NODE") == "true"
        pytest.skip(problem) if skipping else pytest.fail(problem)
    assert program is not None
    return program


def _install(folder: Path) -> str:
    """Install what a lock file names, once; return what is wrong."""
    lock, installed = folder / "package-lock.json", folder / "node_modules" / ".from.json"
    with (folder / "package.json").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the two runs of the suite come here at once
        if installed.exists() and installed.read_bytes() == lock.read_bytes():
            return ""
        done = subprocess.run(
            ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=folder,
            check=False,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
        )
        if done.returncode == 0:
            installed.parent.mkdir(exist_ok=True)  # npm makes none for no packages
            shutil.copyfile(lock, installed)
    return f"npm ci: {done.stderr[:500].strip()}" if done.returncode else ""
