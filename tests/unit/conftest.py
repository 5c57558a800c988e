"""Settings read anew, and Python run anew, in an environment of the test's own."""

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def read_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Read the settings anew, with no environment variables but those given."""

    def read(**variables: str) -> dict[str, Any]:
        for name in list(os.environ):
            monkeypatch.delenv(name)
        for name, value in ({"VAR_DIR": str(tmp_path)} | variables).items():
            monkeypatch.setenv(name, value)
        return runpy.run_path(str(ROOT / "booking_platform" / "settings.py"))

    return read


@pytest.fixture
def python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python in a process that has no environment variables but those given."""

    def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        basis = {
            "PATH": os.environ["PATH"],
            "VAR_DIR": str(tmp_path),
            "DJANGO_SETTINGS_MODULE": "booking_platform.settings",
        }
        return subprocess.run(
            [sys.executable, "-W", "error", *command],
            cwd=ROOT,
            env=basis | variables,
            capture_output=True,
            text=True,
            check=False,
        )

    return run
