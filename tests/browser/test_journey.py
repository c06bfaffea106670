"""What a person does: launch a Run, watch it, look where it hurt, read a log."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Site

pytestmark = pytest.mark.browser

SEALED_LIMIT_MS = 90_000
FIELDS = {
    "sandbox_count": "40",
    "sandboxes_per_shard": "10",
    "hold_s": "3",
    "probe_interval_s": "1",
    "probe_timeout_s": "1",
    "create_timeout_s": "3",
    "ready_timeout_s": "3",
    "final_spread_s": "1",
    "heartbeat_interval_s": "0.5",
    "flush_interval_s": "1",
    "world": '{"create_errors": 2, "deaths": 1}',
}


@pytest.fixture(scope="module")
def run_url(page: Page, site: Site) -> str:
    """One Run, launched from the form and watched until it is sealed."""
    page.goto(f"{site.url}/runs/new")
    for folded in ("Timeouts", "Fleet and seed"):
        page.get_by_text(folded, exact=True).click()
    for name, value in FIELDS.items():
        page.locator(f"[name={name}]").fill(value)
    expect(page.locator("[data-estimate-here]")).to_contain_text("40")
    page.get_by_role("button", name="Launch").click()
    page.wait_for_url(re.compile(r"/runs/sim-[0-9a-f]+$"))
    return page.url


def test_a_run_is_watched_live_until_it_is_sealed(page: Page, run_url: str) -> None:
    page.evaluate("window.neverReloaded = true")
    expect(page.locator(".timeline .now")).to_be_visible()
    expect(page.locator(".awaited")).not_to_be_empty()
    expect(page.locator("[data-abort]")).to_be_visible()
    curve = page.locator("[data-chart]")
    expect(curve.first).to_contain_text("told by agents", timeout=SEALED_LIMIT_MS)
    ending = "[data-live][data-state=tearing_down], [data-live][data-state=collecting]"
    expect(page.locator(ending)).to_have_count(1, timeout=SEALED_LIMIT_MS)
    expect(page.locator("[data-abort]")).to_be_hidden()
    expect(page.locator(".provenance")).to_contain_text(re.compile(r"T0\d"))
    expect(page.locator("main > [data-state=sealed]")).to_have_count(
        1, timeout=SEALED_LIMIT_MS
    )
    assert page.evaluate("window.neverReloaded")
    expect(page.locator(".timeline")).to_have_count(0)
    expect(page.locator("#verdict")).to_be_visible()
    expect(page.locator(".outcome-list .sum")).to_contain_text("40 asked")
    expect(page.locator(".chart svg .scatterlayer .trace").first).to_be_attached()


def test_the_curve_shows_every_line(page: Page, run_url: str) -> None:
    page.goto(run_url)
    chart = page.locator("[data-chart]").first
    expect(chart.locator("svg .scatterlayer .trace")).to_have_count(3)
    chart.locator(".nsewdrag").hover()
    expect(chart.locator(".hoverlayer")).to_contain_text("proven")


def test_the_grid_is_walked_with_arrow_keys(page: Page, run_url: str) -> None:
    page.goto(run_url)
    jump = page.get_by_role("navigation", name="On this page")
    jump.get_by_role("link", name="Shards").press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")  # past the link to the table
    expect(page.locator("[data-grid] a").first).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator("[data-grid-says]")).to_contain_text("Shard 2:")
    page.keyboard.press("Home")
    expect(page.locator("[data-grid-says]")).to_contain_text("Shard 0:")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{run_url}/shards/0")


def test_a_shard_shows_lives_and_events(page: Page, run_url: str) -> None:
    page.goto(f"{run_url}/shards/1")
    expect(page.locator("a.life")).to_have_count(10)
    page.locator("#sandbox-12").click()
    expect(page.locator("#events")).to_contain_text("Events of sandbox 12")
    expect(page.locator(".events")).to_contain_text("create sent")


def test_a_live_page_does_not_poll_while_it_is_hidden(
    page: Page, site: Site, run_url: str
) -> None:
    """A draft is live for as long as nobody launches it."""
    plan = {"provider": "sim", "sandbox_count": 10}
    answer = page.request.post(
        f"{site.url}/api/v1/runs",
        data=plan,
        headers={"Authorization": f"Bearer {site.token()}"},
    )
    assert answer.ok
    polls: list[str] = []
    page.on("request", lambda r: polls.append(r.url) if "live.json" in r.url else None)
    page.goto(f"{site.url}/runs/{answer.json()['code']}")
    with page.expect_response(re.compile("live.json")):
        pass
    hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true})"
    page.evaluate(hide % "true")
    page.wait_for_timeout(2_500)  # the poll under way ends, and none follows
    before = len(polls)
    page.wait_for_timeout(2_500)
    assert len(polls) == before
    page.evaluate(hide % "false")
    with page.expect_response(re.compile("live.json")):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def test_a_log_is_found_in_and_its_lines_have_addresses(
    page: Page, run_url: str
) -> None:
    page.goto(f"{run_url}/shards/1")
    lines = page.locator(".log-line")
    expect(lines.first).to_be_visible()
    page.get_by_role("searchbox").fill("armed")
    expect(page.locator(".log-line mark").first).to_be_visible()
    address = lines.nth(1).locator("a")
    address.click()
    assert page.url.endswith(str(address.get_attribute("href")))


def test_pages_work_without_scripts(page: Page, run_url: str, site: Site) -> None:
    browser = page.context.browser
    assert browser is not None
    context = browser.new_context(
        java_script_enabled=False, storage_state=page.context.storage_state()
    )
    plain = context.new_page()
    plain.goto(run_url)
    expect(plain.locator(".chart").first).to_be_hidden()
    expect(plain.locator("h1")).to_contain_text(re.compile("sandboxes|No result"))
    plain.locator("[data-grid] a").nth(1).click()
    expect(plain.locator("h1")).to_contain_text("Shard 1")
    context.close()


@pytest.mark.parametrize("part", ["", "/shards/0?sandbox=3"])
def test_no_page_scrolls_sideways_on_a_phone(
    page: Page, run_url: str, part: str
) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(f"{run_url}{part}")
    page.wait_for_load_state("networkidle")
    width = page.evaluate("document.documentElement.scrollWidth")
    page.set_viewport_size({"width": 1280, "height": 900})
    assert width <= 390


def test_strangers_do_not_see_what_is_not_published(
    page: Page, run_url: str, site: Site
) -> None:
    browser = page.context.browser
    assert browser is not None
    stranger = browser.new_page()
    answer = stranger.goto(run_url)
    assert answer is not None
    assert answer.status == 404
    expect(stranger.locator("h1")).to_contain_text("nothing at this address")
    stranger.close()
