"""`make screenshots`: the main pages, written to docs/img."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser import record
from tests.browser.conftest import Site
from tests.embedded import ROOT

IMG = ROOT / "docs" / "img"
LIVE_PLAN = {
    "provider": "sim",
    "sandbox_count": 400,
    "sandboxes_per_shard": 20,
    "hold_s": 25,
    "probe_interval_s": 2,
    "load": {"shape": "staggered", "stagger_us": 20_000},
    "world": {"create_errors": 6, "deaths": 4},
}
PAGES = {
    "run": "/runs/sim-large",
    "sandboxes": "/runs/sim-large/sandboxes?of=tti&least_ms=600&sort=-tti",
    "shard": "/runs/sim-large/shards/7",
    "compare": "/compare?runs=sim-large,sim-other",
    "new-run": "/runs/new?provider=e2b&endpoint=simcloud&sandbox_count=10000",
}


@pytest.fixture(scope="module")
def records(site: Site) -> None:
    bucket = site.data / "objects" / "raw"
    record.write(
        bucket, "sim-large", shards=200, per_shard=20, log_lines=400, late=False
    )
    record.write(
        bucket, "sim-other", shards=200, per_shard=20, tti_ms=450, seed=5, late=False
    )
    for code in ("sim-large", "sim-other"):
        site.manage("rebuild_run", code, limit_s=300)


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_is_shown(
    page: Page, site: Site, records: None, name: str, scheme: str
) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.set_viewport_size({"width": 1440, "height": 1000})
    page.goto(f"{site.url}{PAGES[name]}")
    page.wait_for_load_state("networkidle")
    expect(page.locator("main h1")).to_be_visible()
    suffix = "" if scheme == "light" else "-dark"
    page.screenshot(path=IMG / f"{name}{suffix}.png")


def test_a_log_and_a_phone_are_shown(page: Page, site: Site, records: None) -> None:
    page.emulate_media(color_scheme="light")
    page.goto(f"{site.url}/runs/sim-large/shards/7#L200-L204")
    expect(page.locator(".log-line.is-chosen")).to_have_count(5)
    page.locator("[data-log]").screenshot(path=IMG / "log.png")
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{site.url}{PAGES['run']}")
    page.wait_for_load_state("networkidle")
    page.screenshot(path=IMG / "run-phone.png")


def test_a_live_run_is_shown(page: Page, site: Site, tmp_path: Path) -> None:
    page.set_viewport_size({"width": 1440, "height": 1000})
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(LIVE_PLAN))
    said = site.last_line("launch_run", str(plan))
    code = re.search(r"sim-[0-9a-f]+", said)
    assert code is not None, said
    page.goto(f"{site.url}/runs/{code[0]}")
    live = page.locator("[data-live][data-state=holding]")
    expect(live).to_have_count(1, timeout=90_000)
    expect(page.locator("[data-chart] .scatterlayer .trace")).to_have_count(
        4, timeout=30_000
    )
    page.screenshot(path=IMG / "live.png")
