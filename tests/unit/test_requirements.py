"""The lock: what is chosen in ``requirements*.in``, and what is installed by ``requirements*.txt``."""

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import distribution, packages_distributions, version
from pathlib import Path

import pytest
from django.conf import settings
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as canonical

RUNS, DEVELOPS, MEASURES = "requirements", "requirements-dev", "requirements-bench"
OURS = {"booking_platform", "bench", "catalog", "notifications", "payments", "tests"}
FOLDERS = {  # of the lock that has what they import; the others have the first
    MEASURES: ("bench",),
    DEVELOPS: ("tests", "booking_platform/development"),
}
RELOCK = "run `make lock`, and commit what it writes"


def entries(file: str) -> Iterator[str]:
    """Yield the requirements of a file, each as one line, and those of the files that it includes."""
    text = (settings.BASE_DIR / file).read_text()
    for line in (
        re.sub(r"(^|\s)#.*", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    ):
        if included := re.match(r"-r (\S+)", line):
            yield from entries(included[1])
        elif line.strip() and not line.startswith("-c "):
            yield line.strip()


def chosen(lock: str) -> list[Requirement]:
    return [Requirement(line) for line in entries(f"{lock}.in")]


def locked(lock: str) -> dict[str, Requirement]:
    """Return what a lock has for this Python on this machine, by name."""
    found = [Requirement(line.partition(" --hash")[0]) for line in entries(f"{lock}.txt")]
    return {canonical(r.name): r for r in found if r.marker is None or r.marker.evaluate()}


def needed(roots: Iterable[Requirement]) -> set[str]:
    """Return the names of what is needed here, as the installed packages themselves say."""
    waiting, seen = list(roots), set[tuple[str, str]]()
    while waiting:
        requirement = waiting.pop()
        for extra in ("", *requirement.extras):
            if (requirement.name, extra) not in seen:
                seen.add((requirement.name, extra))
                needs = map(Requirement, distribution(requirement.name).requires or [])
                waiting += [n for n in needs if not n.marker or n.marker.evaluate({"extra": extra})]
    return {canonical(name) for name, _ in seen}


def imported(file: Path) -> set[str]:
    """Return the names of the packages that a module imports, but for Python's own and ours."""
    names = set[str]()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(str(node.module))
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - OURS


def modules(lock: str) -> Iterator[Path]:
    for package in sorted(OURS):
        for file in (settings.BASE_DIR / package).rglob("*.py"):
            path = str(file.relative_to(settings.BASE_DIR))
            if lock == next((each for each in FOLDERS if path.startswith(FOLDERS[each])), RUNS):
                yield file


@pytest.mark.parametrize("lock", [RUNS, DEVELOPS, MEASURES])
class TestALock:
    def test_it_has_every_choice_in_the_version_that_was_chosen(self, lock: str) -> None:
        pins = {canonical(each.name): each.specifier for each in chosen(lock)}

        assert pins == {n: r.specifier for n, r in locked(lock).items() if n in pins}, RELOCK

    def test_each_line_names_one_version_and_its_hashes(self, lock: str) -> None:
        pinned = re.compile(r"[\w.-]+==[^\s;*]+( ; [^#]*?)?(\s+--hash=sha256:[0-9a-f]{64})+")

        assert [line for line in entries(f"{lock}.txt") if not pinned.fullmatch(line)] == []


@pytest.mark.parametrize("lock", [RUNS, DEVELOPS])  # the third is installed by `make bench` only
class TestALockThatIsInstalled:
    def test_it_has_what_the_choices_need_and_nothing_else(self, lock: str) -> None:
        assert set(locked(lock)) == needed(chosen(lock)), RELOCK

    def test_it_is_what_is_installed(self, lock: str) -> None:
        installed = {name: f"=={version(name)}" for name in locked(lock)}

        assert installed == {name: str(r.specifier) for name, r in locked(lock).items()}


class TestTheLocks:
    def test_what_is_tested_is_what_runs(self) -> None:
        tested = set(entries(f"{DEVELOPS}.txt"))

        assert [line for line in entries(f"{RUNS}.txt") if line not in tested] == [], RELOCK

    def test_what_is_measured_is_what_is_tested(self) -> None:
        measured = locked(MEASURES)

        assert {n: r for n, r in locked(DEVELOPS).items() if measured.get(n) != r} == {}, RELOCK


class TestWhatIsImported:
    @pytest.mark.parametrize("lock", [RUNS, DEVELOPS, MEASURES])
    def test_it_was_chosen(self, lock: str) -> None:
        """A name that comes along with another package may go, or change, with any version of it."""
        providers = packages_distributions()
        names = {canonical(each.name) for each in chosen(lock)}
        foreign = {name for file in modules(lock) for name in imported(file)}

        assert {
            n for n in foreign if not names & set(map(canonical, providers.get(n, [n])))
        } == set()
