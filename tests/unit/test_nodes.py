"""Tests in Node.js: left out where there is none, but for CI."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.nodes import node


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "package.json").write_text('{"name": "nothing", "private": true}')
    (tmp_path / "package-lock.json").write_text(
        '{"name": "nothing", "lockfileVersion": 3, "packages": {"": {"name": "nothing"}}}'
    )
    return tmp_path


@pytest.fixture(autouse=True)
def _not_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("WITHOUT_NODE", raising=False)


def outcome(folder: Path) -> str:
    try:
        node(folder)
    except (pytest.skip.Exception, pytest.fail.Exception) as ended:
        return f"{type(ended).__name__}: {ended}"
    return "there"


class TestWithoutNode:
    @pytest.mark.parametrize(
        ("variables", "said"),
        [
            ({}, "Skipped: needs Node.js and npm"),
            ({"CI": "true"}, "Failed: needs Node.js and npm"),
            ({"CI": "true", "WITHOUT_NODE": "true"}, "Skipped: needs Node.js and npm"),
        ],
    )
    def test_a_test_is_left_out_but_for_ci(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
    ) -> None:
        monkeypatch.setenv("PATH", str(folder))
        for variable in variables.items():
            monkeypatch.setenv(*variable)

        assert outcome(folder) == said


@pytest.mark.skipif(not shutil.which("npm"), reason="needs npm")
class TestPackages:
    def test_they_are_installed_once_and_anew_when_the_lock_file_changes(
        self, folder: Path, monkeypatch: Any
    ) -> None:
        installed = folder / "node_modules" / ".from.json"
        assert outcome(folder) == "there"
        first = installed.stat().st_mtime_ns
        assert outcome(folder) == "there"
        assert installed.stat().st_mtime_ns == first

        lock = folder / "package-lock.json"
        lock.write_text(lock.read_text() + "\n")
        assert outcome(folder) == "there"
        assert installed.read_bytes() == lock.read_bytes()

    def test_what_can_not_be_installed_is_said(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder / "package-lock.json").write_text("{")
        assert outcome(folder).startswith("Skipped: npm ci: npm err")
        monkeypatch.setenv("CI", "true")
        assert outcome(folder).startswith("Failed: npm ci: npm err")
