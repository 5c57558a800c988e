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
SCHEMES = ("light", "dark")
SHOWN = Path(settings.BASE_DIR) / "var" / "screenshots"
AXE_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
# Only what it has found: all that it has looked at is a megabyte of JSON for some pages.
RUN_AXE = """async rules =>
    (await axe.run(document, {runOnly: {type: "tag", values: rules}})).violations"""
# The theme asks for the system's choice as a page is loaded, and puts it here.
CHOOSE = "dark => { document.documentElement.className = dark ? 'dark' : ''; }"
NOTHING_FADES = """() => document.getAnimations().every(
    each => !(each instanceof CSSTransition) || each.playState === "finished")"""


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
    """Somebody before a browser of a width, logged in to the admin."""

    page: Page
    base: str
    width: int
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
        """Keep a picture of the page under var/screenshots in each theme, and note what is wrong with it."""
        SHOWN.mkdir(parents=True, exist_ok=True)
        node(TESTS)  # installs axe-core, too
        self.page.evaluate((TESTS / "node_modules/axe-core/axe.min.js").read_text() + ";0")
        for scheme in SCHEMES:
            self._choose(scheme)
            self.page.screenshot(path=SHOWN / f"{name}-{self.width}-{scheme}.png", full_page=True)
            wide = self.page.evaluate("document.documentElement.scrollWidth")
            found = [f"{wide} pixels wide"] if wide > self.width else []
            found += self._cut_columns() + self._inaccessible()
            self.problems += [f"{name}, {self.width} pixels, {scheme}: {each}" for each in found]
        self._choose(SCHEMES[0])

    def _choose(self, scheme: Any) -> None:
        self.page.emulate_media(color_scheme=scheme)
        self.page.evaluate(CHOOSE, scheme == "dark")
        self.page.wait_for_function(NOTHING_FADES)

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
        violations: list[dict[str, Any]] = self.page.evaluate(RUN_AXE, AXE_RULES)
        return [
            f"{found['id']}: {found['help']}: {found['nodes'][0]['html'][:200]}"
            f" ({len(found['nodes'])} times)"
            for found in violations
            if found["impact"] in ("serious", "critical")
        ]

    def _note_error(self, message: Any) -> None:
        if message.type == "error":
            self.problems.append(f"console: {message.text}")

    def _note_stranger(self, request: Any) -> None:
        if not re.match(rf"{re.escape(self.base)}/|data:|about:|blob:", request.url):
            self.problems.append(f"asked a foreign host: {request.url}")


@contextmanager
def person(browser: Browser, base: str, *, width: int = WIDE) -> Iterator[Person]:
    """Open a window of its own, with cookies of its own, in the light theme."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme="light", reduced_motion="reduce"
    )
    context.set_default_timeout(60_000)
    try:
        yield Person(context.new_page(), base, width)
    finally:
        context.close()
