"""A real site in a process of its own, and a browser to walk through it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests import embedded

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
STEP_LIMIT_MS = 15_000


class Site(embedded.Site):
    def last_line(self, *words: str, limit_s: float = 60) -> str:
        """The last line that a command prints."""
        said = self.manage(*words, limit_s=limit_s).stdout
        return said.strip().splitlines()[-1]


# Not of the session: Playwright's loop must be gone before other tests use Django.
@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if CHROMIUM is None:
        pytest.skip("no chromium here; install Debian's package `chromium`")
    site = Site(tmp_path_factory.mktemp("site"))
    with embedded.running(site):
        yield site


@pytest.fixture(scope="module")
def browser(site: Site) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )
        yield found
        found.close()


@pytest.fixture(scope="module")
def page(site: Site, browser: Browser) -> Iterator[Page]:
    """Signed in by a one-time link; a script error anywhere fails the test module."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    found = context.new_page()
    found.set_default_timeout(STEP_LIMIT_MS)
    errors: list[str] = []
    found.on("pageerror", lambda error: errors.append(str(error)))
    found.goto(site.last_line("sign_in_link", "anna"))
    found.get_by_role("main").get_by_role("button", name="Sign in").click()
    yield found
    context.close()
    assert errors == []
