"""What a visitor does with results: follow a number, a point, a line of a log."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.browser import record
from tests.browser.conftest import Site

pytestmark = pytest.mark.browser

AXE = Path(__file__).with_name("vendor") / "axe-4.10.3.min.js"
# Some Shards and the main pages once by default; 1,000 Shards, and every page in all
# four combinations of width and colours, with `make pages`.
ALL = bool(os.environ.get("ALL_PAGES"))
WIDE, WIDE_SHARDS, LOG_LINES = "wide-0001", 1_000 if ALL else 120, 100_000
REBUILD_LIMIT_S = 300
WIRE_BYTES_MAX = 700_000  # of a Run's page, compressed, nothing cached
ROWS_IN_SIGHT_MAX = 150
FLEET_SEARCH_MAX_S = 3.0
PAGES = (
    "/leaderboard",
    "/compare?runs=small-001,small-002",
    "/runs/new",
    "/runs/small-001",
    "/runs/small-001/sandboxes?outcome=failed",
    "/runs/small-001/shards/7",
)
OTHER_PAGES = (
    "/",
    "/runs",
    "/compare",
    "/methodology",
    "/account",
    "/calibration",
    "/api/v1/docs",
    "/sign-in",
    "/runs/small-001/sandboxes?outcome=glorious",
    "/runs/small-001/shards",
    "/runs/small-001/log?q=needle",
    "/runs/nobody",
)


@pytest.fixture(scope="module")
def runs(site: Site) -> str:
    """One Run of many Shards, and two to compare; their address without the code."""
    bucket = site.data / "objects" / "raw"
    record.write(
        bucket,
        WIDE,
        shards=WIDE_SHARDS,
        per_shard=2,
        log_lines=20,
        first_log_lines=LOG_LINES,
    )
    record.write(bucket, "small-001", shards=20, per_shard=10)
    record.write(bucket, "small-002", shards=20, per_shard=10, tti_ms=900, seed=2)
    site.manage("rebuild_run", "--all", limit_s=REBUILD_LIMIT_S)
    return f"{site.url}/runs"


def count_in_heading(page: Page) -> int:
    found = re.search(r"[\d,]+", page.locator("h1").inner_text())
    assert found is not None
    return int(found[0].replace(",", ""))


def test_an_outcome_leads_to_its_sandboxes(page: Page, runs: str) -> None:
    page.goto(f"{runs}/small-001")
    link = page.locator(".outcome-list a[href$='outcome=failed']")
    count = int(link.inner_text())
    assert count > 0
    link.click()
    expect(page.locator("h1")).to_contain_text("whose create failed")
    assert count_in_heading(page) == count
    expect(page.locator("table.sandboxes tbody tr")).to_have_count(count)


def test_a_point_of_the_curve_leads_to_its_sandboxes(page: Page, runs: str) -> None:
    page.goto(f"{runs}/small-001")
    chart = page.locator("[data-chart]").first
    expect(chart.locator(".scatterlayer .trace")).to_have_count(3)
    chart.locator(".nsewdrag").click(position={"x": 300, "y": 60})
    page.wait_for_url(re.compile(r"alive=\w+&at_ms=\d+"))
    expect(page.locator("h1")).to_contain_text("after T0")
    assert count_in_heading(page) > 100


def test_a_bin_of_the_distribution_leads_to_its_sandboxes(
    page: Page, runs: str
) -> None:
    page.goto(f"{runs}/small-001")
    page.get_by_role("button", name="create", exact=True).click()
    chart = page.locator("[data-chart*='of=size']")
    expect(chart).to_have_attribute("data-drawn", re.compile("phase=create"))
    box = chart.locator(".nsewdrag").bounding_box()
    assert box is not None
    middle = {"x": box["width"] * 0.4, "y": box["height"] * 0.9}
    chart.locator(".nsewdrag").click(position=middle)
    page.wait_for_url(re.compile(r"of=create&sort=-create&least_ms="))
    assert 0 < count_in_heading(page) < 200


def test_a_chart_is_saved_as_svg_and_png(page: Page, runs: str) -> None:
    page.goto(f"{runs}/small-001")
    for kind in ("SVG", "PNG"):
        with page.expect_download() as saved:
            actions = page.locator("[data-name$=-curve] + .chart-actions")
            actions.get_by_role("button", name=f"Save as {kind}").click()
        assert saved.value.suggested_filename == f"small-001-curve.{kind.lower()}"
        assert Path(saved.value.path()).stat().st_size > 5_000


def test_the_explorer_holds_its_state_in_the_address(page: Page, runs: str) -> None:
    page.goto(f"{runs}/small-001/sandboxes")
    page.locator("[name=outcome]").select_option("success")
    page.get_by_label("Which latency").select_option("tti")
    page.get_by_label("from").fill("300")
    page.get_by_role("button", name="Show").click()
    page.get_by_role("columnheader", name="TTI").get_by_role("link").click()
    page.get_by_role("link", name=re.compile(r"^Next \d+")).click()
    expect(page.locator("[aria-sort=descending]")).to_contain_text("TTI")
    said, rows = page.locator("h1").inner_text(), page.locator("tbody").inner_text()
    assert len(urlsplit(page.url).query) < 120
    browser = page.context.browser
    assert browser is not None
    other = browser.new_context(storage_state=page.context.storage_state())
    pasted = other.new_page()
    pasted.goto(page.url)
    assert pasted.locator("h1").inner_text() == said
    assert pasted.locator("tbody").inner_text() == rows
    other.close()


def test_the_same_address_is_a_file(page: Page, runs: str) -> None:
    query = "outcome=failed&sort=-create"
    page.goto(f"{runs}/small-001/sandboxes?{query}")
    count = count_in_heading(page)
    for kind in ("csv", "json", "parquet"):
        answer = page.request.get(f"{runs}/small-001/sandboxes.{kind}?{query}")
        assert answer.ok
        if kind == "csv":
            assert len(answer.text().strip().splitlines()) == count + 1
        if kind == "json":
            assert len(json.loads(answer.text())["data"]) == count
        if kind == "parquet":
            assert answer.body()[:4] == b"PAR1"


def test_paper_is_white_and_holds_whole_charts(page: Page, runs: str) -> None:
    page.emulate_media(color_scheme="dark")
    page.goto(f"{runs}/small-001")
    chart = page.locator("[data-chart]").first
    expect(chart.locator(".scatterlayer .trace")).to_have_count(3)
    ink = "getComputedStyle(document.body).color"
    on_screen, paper_px = page.evaluate(ink), 690
    assert float(chart.locator("svg").first.get_attribute("width") or 0) > paper_px
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(ink) == "rgb(27, 30, 35)"
    assert float(chart.locator("svg").first.get_attribute("width") or 0) < paper_px
    line = chart.locator(".scatterlayer .trace path.js-line").last
    assert "rgb(0, 114, 178)" in str(line.get_attribute("style"))
    page.emulate_media(media="screen", color_scheme="dark")
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(ink) == on_screen
    assert float(chart.locator("svg").first.get_attribute("width") or 0) > paper_px
    page.emulate_media(color_scheme="light")


def test_many_shards_are_a_grid(page: Page, runs: str) -> None:
    page.goto(f"{runs}/{WIDE}")
    cells = page.locator("[data-grid] a")
    expect(cells).to_have_count(WIDE_SHARDS)
    cells.first.focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator("[data-grid-says]")).to_contain_text("Shard 50:")
    box = page.locator("[data-grid]").bounding_box()
    assert box is not None
    assert box["height"] < 500  # with room to spare on a laptop's screen
    page.locator(".figures a", has_text="ms").last.click()
    expect(page.locator("[aria-sort=descending]")).to_have_count(1)


def test_a_page_of_a_large_run_is_light(page: Page, runs: str) -> None:
    browser = page.context.browser
    assert browser is not None
    fresh = browser.new_context(storage_state=page.context.storage_state())
    first = fresh.new_page()
    asked: list[str] = []
    first.on("request", lambda r: asked.append(r.url) if "/chart" in r.url else None)
    first.goto(f"{runs}/{WIDE}")
    expect(first.locator("[data-chart*='of=start'] .scatterlayer")).to_be_attached()
    assert len(asked) == len(set(asked))  # each script and each figure once
    sizes = first.evaluate(
        "[...performance.getEntriesByType('navigation'),"
        " ...performance.getEntriesByType('resource')].map(e => e.transferSize)"
    )
    fresh.close()
    assert len(sizes) > 8
    assert 100_000 < sum(sizes) < WIRE_BYTES_MAX


def test_a_hundred_thousand_lines_are_a_window(page: Page, runs: str) -> None:
    page.goto(f"{runs}/{WIDE}/shards/0")
    expect(page.locator("[data-says]")).to_have_text("100,000 lines")
    scroller, lines = page.locator("[data-scroller]"), page.locator(".log-line")
    for share in (0.3, 0.62, 1.0):
        scroller.evaluate(
            "(e, share) => { e.scrollTop = share * e.scrollHeight }", share
        )
        expect(lines.last.locator(".text")).not_to_be_empty()
        assert lines.count() < ROWS_IN_SIGHT_MAX
    expect(page.locator(".log-line a", has_text="99999")).to_be_visible()


def test_the_log_has_a_find_of_its_own(page: Page, runs: str) -> None:
    page.goto(f"{runs}/{WIDE}/shards/0")
    expect(page.locator("[data-says]")).to_have_text("100,000 lines")
    page.keyboard.press("Control+f")
    box = page.get_by_role("searchbox")
    expect(box).to_be_focused()
    box.fill("needle")
    expect(page.locator("[data-says]")).to_have_text("1 of 1")
    line = page.locator(".log-line.is-current")
    expect(line.locator("mark")).to_have_text("needle")
    # What a log says is text, whatever it looks like.
    expect(line).to_contain_text("<b>is bold</b> <script>x</script>")
    assert page.locator("[data-scroller]").locator("b, script").count() == 0
    box.fill("429 too many")
    expect(page.locator("[data-says]")).to_have_text("201 of 400")
    page.keyboard.press("Enter")
    expect(page.locator("[data-says]")).to_have_text("202 of 400")
    page.keyboard.press("Shift+Enter")
    expect(page.locator("[data-says]")).to_have_text("201 of 400")
    page.get_by_role("button", name="error ▶").click()
    expect(page.locator("[data-says]")).to_have_text("error 202 of 400")


def test_colours_levels_and_folds_of_a_log(page: Page, runs: str) -> None:
    page.goto(f"{runs}/{WIDE}/shards/0")
    expect(page.locator(".a-green").first).to_have_text("✓")
    page.get_by_role("button", name=re.compile("before T0")).click()
    expect(page.get_by_role("button", name=re.compile("burst"))).to_be_visible()
    page.get_by_label("Least level shown").select_option("ERROR")
    expect(page.locator("[data-says]")).to_have_text("400 lines")
    assert "level=ERROR" in page.url


def test_long_lines_are_wrapped_where_one_likes(page: Page, runs: str) -> None:
    page.goto(f"{runs}/{WIDE}/shards/0#L50002")
    line = page.locator(".log-line.is-chosen")
    expect(line).to_contain_text("and its end")
    page.get_by_label("wrap").check()
    expect(page.locator(".log-lines.is-wrapped")).to_be_visible()
    expect(line).to_be_visible()
    tall = line.bounding_box()
    after = page.locator(".log-line", has_text="50003").first.bounding_box()
    assert tall is not None
    assert after is not None
    assert tall["height"] > 40
    assert after["y"] == pytest.approx(tall["y"] + tall["height"], abs=1)
    scroller = page.locator("[data-scroller]")
    assert scroller.evaluate("(e) => e.scrollWidth <= e.clientWidth")
    assert "wrap=1" in page.url
    page.reload()
    expect(page.locator(".log-lines.is-wrapped .log-line").first).to_be_visible()
    scroller.evaluate("(e) => { e.scrollTop = e.scrollHeight }")
    expect(page.locator(".log-line a", has_text="99999")).to_be_visible()
    page.get_by_label("wrap").uncheck()
    assert "wrap" not in page.url
    expect(page.locator(".log-line a", has_text="99999")).to_be_visible()


def test_lines_have_addresses(page: Page, runs: str) -> None:
    page.goto(f"{runs}/{WIDE}/shards/0#L70000-L70003")
    expect(page.locator(".log-line.is-chosen")).to_have_count(4)
    expect(page.locator(".log-line.is-chosen a").first).to_have_text("70000")
    page.locator(".log-line a", has_text="70006").click()
    page.locator(".log-line a", has_text="70008").click(modifiers=["Shift"])
    assert page.url.endswith("#L70006-L70008")
    expect(page.locator(".log-line.is-chosen")).to_have_count(3)


def test_all_shards_are_searched_at_once(page: Page, runs: str) -> None:
    page.goto(f"{runs}/{WIDE}/log")
    page.get_by_role("searchbox").fill("needle of shard")
    started = time.monotonic()
    page.get_by_role("button", name="Search").click()
    expect(page.locator("h1")).to_contain_text(f"{WIDE_SHARDS:,} log lines")
    assert time.monotonic() - started < FLEET_SEARCH_MAX_S
    page.locator("tbody tr").nth(3).locator("td").nth(1).get_by_role("link").click()
    page.wait_for_url(re.compile(r"/shards/3\?attempt=0#L10$"))
    expect(page.locator(".log-line.is-chosen")).to_contain_text("needle of Shard 3")


def test_runs_are_compared(page: Page, runs: str) -> None:
    page.goto(runs)
    for code in ("small-001", "small-002"):
        page.get_by_label(f"Choose {code} to compare").check()
    page.get_by_role("button", name="Compare the chosen").click()
    expect(page.locator("h1")).to_contain_text("beside")
    expect(page.locator("[data-chart] .scatterlayer .trace")).to_have_count(2)
    row = page.get_by_role("row", name=re.compile("^Create P50"))
    expect(row).to_contain_text("≠")


def test_a_run_is_set_up_tried_and_kept(page: Page, site: Site, runs: str) -> None:
    page.goto(f"{site.url}/runs/new")
    page.locator("[name=sandbox_count]").fill("250")
    page.locator("[name=load_shape]").select_option("staircase")
    page.locator("[name=load_steps]").fill("5")
    page.locator("[name=load_step_s]").fill("10")
    expect(page.locator("[data-estimate-here]")).to_contain_text("⌈250 / 100⌉")
    expect(page.locator(".preview polyline")).to_be_visible()
    page.get_by_role("button", name=re.compile("Preflight")).click()
    steps = page.locator(".preflight li")
    expect(steps.first).to_be_visible(timeout=60_000)
    assert steps.count() == 7
    page.get_by_text("Save as a preset").click()
    page.get_by_label("Name").fill("weekly")
    page.get_by_role("button", name="Save", exact=True).click()
    page.wait_for_url(re.compile(r"preset=\d+"))
    assert page.locator("[name=load_steps]").input_value() == "5"


COMBINATIONS = [(390, "light"), (1440, "dark"), (390, "dark"), (1440, "light")]


@pytest.mark.parametrize(
    ("path", "width", "scheme"),
    [
        (path, *COMBINATIONS[(place + more) % 4])
        for place, path in enumerate([*PAGES, *(OTHER_PAGES if ALL else ())])
        for more in range(4 if ALL else 1)
    ],
)
def test_every_page_is_accessible_local_and_fits(
    page: Page, site: Site, runs: str, path: str, width: int, scheme: str
) -> None:
    browser = page.context.browser
    assert browser is not None
    context = browser.new_context(
        storage_state=page.context.storage_state(),
        color_scheme="dark" if scheme == "dark" else "light",
        viewport={"width": width, "height": 900},
    )
    # The policy of the page itself would keep the tool out.
    context.add_init_script(AXE.read_text())
    context.add_init_script(
        "window.broken = []; document.addEventListener('securitypolicyviolation',"
        " (e) => window.broken.push(`${e.violatedDirective} ${e.blockedURI}`));"
    )
    seen = context.new_page()
    elsewhere: list[str] = []
    host = urlsplit(site.url).netloc
    seen.on(
        "request",
        lambda r: (
            elsewhere.append(r.url)
            if urlsplit(r.url).scheme.startswith("http")
            and urlsplit(r.url).netloc != host
            else None
        ),
    )
    seen.goto(f"{site.url}{path}")
    seen.wait_for_load_state("networkidle")
    found = seen.evaluate(
        "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']})"
    )
    serious = [
        f"{rule['id']}: {rule['nodes'][0]['target']} of {len(rule['nodes'])}"
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
    ]
    broken = seen.evaluate("window.broken")
    needed = seen.evaluate("document.documentElement.scrollWidth")
    context.close()
    assert serious == []
    assert broken == []
    assert elsewhere == []
    assert needed <= width
