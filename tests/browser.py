"""Debian's Chromium before the admin: what a person sees, clicks and is told by it.

Whatever a page does that none of ours may do is noted: an error of JavaScript, a request to a foreign
host, something wider than the window, a serious finding of axe (WCAG).
"""

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from playwright.sync_api import Browser, Page, sync_playwright

from tests.nodes import TESTS, node
from tests.servers import _install

BINARY = "/usr/bin/chromium"
# It runs as root in a container, and asks nobody for anything but the page.
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
WIDE, NARROW = 1280, 390  # pixels
SHOWN = Path(settings.BASE_DIR) / "var" / "screenshots"
AXE_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]


def has_chromium() -> bool:
    """Return whether Chromium is there; install Debian's package where that may be, in one process."""
    if shutil.which("chromium"):
        return True
    with (Path(tempfile.gettempdir()) / "bp-chromium.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        return _install("chromium", BINARY)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium; skip the test where there is none, or fail it in CI."""
    if not has_chromium():
        problem = "needs Chromium, which could not be installed"
        pytest.fail(problem) if os.environ.get("CI") == "true" else pytest.skip(problem)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or BINARY, args=list(QUIET)
        )
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Person:
    """Somebody before a browser of a width and theme, logged in to the admin."""

    page: Page
    base: str
    width: int
    scheme: str
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("pageerror", lambda error: self.problems.append(f"JavaScript: {error}"))
        self.page.on("console", self._note_error)
        self.page.on("request", self._note_stranger)

    def log_in(self, name: str, password: str) -> None:
        self.go("/admin/login/")
        self.page.fill("#id_username", name)
        self.page.fill("#id_password", password)
        self.page.click("#login-form button[type=submit]")
        self.page.wait_for_url(f"{self.base}/admin/")

    def go(self, path: str) -> None:
        self.page.goto(self.base + path)
        self.page.wait_for_load_state("networkidle")

    def look(self, name: str) -> None:
        """Keep a picture of the page under var/screenshots, and note what is wrong with it."""
        SHOWN.mkdir(parents=True, exist_ok=True)
        picture = SHOWN / f"{name}-{self.width}-{self.scheme}.png"
        self.page.screenshot(path=picture, full_page=True)
        wide = self.page.evaluate("document.documentElement.scrollWidth")
        if wide > self.width:
            self.problems.append(f"{name}: {wide} pixels wide in a window of {self.width}")
        self.problems += [f"{name}: {problem}" for problem in self._cut_columns()]
        self.problems += [f"{name}: {problem}" for problem in self._inaccessible()]

    def _cut_columns(self) -> list[str]:
        """Return the tables that are wider than the place they have, so that a column is out of sight."""
        found: list[str] = self.page.evaluate(
            """() => [...document.querySelectorAll('#result_list, main table, #content table')]
                .filter(table => table.offsetParent && !table.closest('details:not([open]), .records'))
                .filter(table => table.scrollWidth > table.parentElement.clientWidth + 1)
                .map(table => `${table.id || 'a table'} is ${table.scrollWidth} wide, its place `
                    + table.parentElement.clientWidth)"""
        )
        return found

    def _inaccessible(self) -> list[str]:
        node(TESTS)  # installs axe-core, too
        self.page.evaluate((TESTS / "node_modules/axe-core/axe.min.js").read_text() + ";0")
        result: dict[str, Any] = self.page.evaluate(
            "rules => axe.run(document, {runOnly: {type: 'tag', values: rules}})", AXE_RULES
        )
        return [
            f"{found['id']}: {found['help']}: {found['nodes'][0]['html'][:200]}"
            f" ({len(found['nodes'])} times)"
            for found in result["violations"]
            if found["impact"] in ("serious", "critical")
        ]

    def _note_error(self, message: Any) -> None:
        if message.type == "error":
            self.problems.append(f"console: {message.text}")

    def _note_stranger(self, request: Any) -> None:
        if not re.match(rf"{re.escape(self.base)}/|data:|about:|blob:", request.url):
            self.problems.append(f"asked a foreign host: {request.url}")


@contextmanager
def person(
    browser: Browser, base: str, *, width: int = WIDE, scheme: Any = "light"
) -> Iterator[Person]:
    """Open a window of its own, with cookies of its own."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
    )
    context.set_default_timeout(60_000)
    try:
        yield Person(context.new_page(), base, width, scheme)
    finally:
        context.close()
