"""A real browser for tests of pages: Debian's Chromium, driven by Playwright, without a network.

Where either is missing the tests skip and say so; with TOCSIN_TEST_REQUIRE_SERVICES=1 they fail.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
TIMEOUT_MS = 60_000
"""A shared machine may be slow."""
POLL_MS = 50


@dataclass
class Opened:
    """A page in the browser, and what it did that it should not have."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    """Errors and warnings of its console, exceptions that nobody caught."""
    requests: list[str] = field(default_factory=list)
    """What it asked for beside itself."""

    def show_all(self) -> None:
        """Scroll through the page, so that every chart is drawn."""
        page = self.page
        height = page.evaluate("document.documentElement.scrollHeight")
        for top in range(0, height, 600):
            page.evaluate(f"scrollTo(0, {top})")
            page.wait_for_timeout(20)
        page.evaluate("scrollTo(0, 0)")
        self.until(
            "[...document.querySelectorAll('.chart, .plot')].every(e => e.querySelector('svg'))"
        )

    def until(self, holds: str) -> None:
        """Wait until an expression holds; the page's own policy keeps Playwright from it."""
        for _ in range(TIMEOUT_MS // POLL_MS):
            if self.page.evaluate(holds):
                return
            self.page.wait_for_timeout(POLL_MS)
        pytest.fail(f"never came to be: {holds}")


Open = Callable[..., Opened]


@contextmanager
def browser() -> Iterator[Any]:
    """Yield a browser."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        _without(f"none of {', '.join(NAMES)} is installed")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _without("the playwright package is not installed")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu"]
        chromium = playwright.chromium.launch(executable_path=path, args=arguments)
        try:
            yield chromium
        finally:
            chromium.close()


@contextmanager
def opening(chromium: Any) -> Iterator[Open]:
    """Yield what opens a file, `width` pixels wide, in a `scheme` of light or dark colours."""
    contexts = []

    def open_file(file: Path, *, width: int = 1440, scheme: str = "light") -> Opened:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        context.set_default_timeout(TIMEOUT_MS)
        contexts.append(context)
        opened = Opened(context.new_page())
        address = file.resolve().as_uri()

        def asked(request: Any) -> None:
            if request.url != address and not request.url.startswith("data:"):
                opened.requests.append(request.url)

        def said(message: Any) -> None:
            if message.type in ("error", "warning"):
                opened.complaints.append(message.text)

        opened.page.on("request", asked)
        opened.page.on("console", said)
        opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.page.goto(address)
        return opened

    try:
        yield open_file
    finally:
        for context in contexts:
            context.close()


def _without(missing: str) -> None:
    if os.environ.get("TOCSIN_TEST_REQUIRE_SERVICES") == "1":
        pytest.fail(f"TOCSIN_TEST_REQUIRE_SERVICES=1, but {missing}", pytrace=False)
    pytest.skip(missing)
