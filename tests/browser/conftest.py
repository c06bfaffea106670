"""A real site in a process of its own, and a browser to walk through it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
START_LIMIT_S = 60
STEP_LIMIT_MS = 15_000


@dataclass(frozen=True, slots=True)
class Site:
    url: str
    environment: dict[str, str]

    def manage(self, *words: str, limit_s: float = 60) -> str:
        """The last line that a command prints."""
        done = subprocess.run(
            [sys.executable, "manage.py", *words],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=True,
        )
        return done.stdout.strip().splitlines()[-1]


# Not of the session: Playwright's loop must be gone before other tests use Django.
@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if CHROMIUM is None:
        pytest.skip("no chromium here; install Debian's package `chromium`")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "DATA": str(data), "PORT": str(port)}
    log = (data / "up.log").open("w")
    up = subprocess.Popen(
        [sys.executable, "manage.py", "up"],
        cwd=ROOT,
        env=environment,
        stdout=log,
        stderr=log,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_up(f"{url}/", up, data / "up.log")
        yield Site(url, environment)
    finally:
        up.send_signal(signal.SIGTERM)
        try:
            up.wait(20)
        except subprocess.TimeoutExpired:
            up.kill()
            up.wait()
        log.close()


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
    found.goto(site.manage("sign_in_link", "anna"))
    found.get_by_role("main").get_by_role("button", name="Sign in").click()
    yield found
    context.close()
    assert errors == []


def _wait_until_up(url: str, up: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        if up.poll() is not None:
            break
        try:
            with urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the site did not start:\n{log.read_text()[-2_000:]}")
