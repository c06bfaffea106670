"""What pages of a Run of 100,000 Sandboxes cost, seen from a browser and at the site.

    python -m bench.pages [--sandboxes N] [--lines N]

Prints JSON. The browser is Debian's Chromium; its cache is empty at each first load.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from bench.pages_site import LIVE, NEEDLE, SEALED

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
LOADS = 5
VIEWERS = 8
SETTLE_S = 8.0
WATCH_S = 20.0
START_S_MAX = 300
STEP_MS_MAX = 60_000
LOOK_MS = 20
# In the page from its first instant: paints, shifts, and when the log's text is there.
WATCH = """
window.seen = {lcp: 0, shift: 0, log: 0, viewer: 0};
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) seen.lcp = Math.max(seen.lcp, entry.startTime);
}).observe({type: "largest-contentful-paint", buffered: true});
new PerformanceObserver((list) => {
  for (const e of list.getEntries()) if (!e.hadRecentInput) seen.shift += e.value;
}).observe({type: "layout-shift", buffered: true});
(function look() {
  const shown = (name) => {
    const text = document.querySelector(name);
    return text && text.textContent && text.offsetParent;
  };
  const viewer = shown(".log-line .text");
  if (!seen.log && (viewer || shown(".log li .text"))) seen.log = performance.now();
  if (viewer) seen.viewer = performance.now();
  else requestAnimationFrame(look);
})();
"""
SIZES = """[...performance.getEntriesByType("navigation"),
  ...performance.getEntriesByType("resource")].reduce((sum, entry) =>
  sum + entry.transferSize, 0)"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sandboxes", type=int, default=100_000)
    parser.add_argument("--lines", type=int, default=100_000)
    parser.add_argument("--watch-s", type=float, default=WATCH_S)
    args = parser.parse_args()
    if CHROMIUM is None:
        raise SystemExit("no chromium here; install Debian's package `chromium`")
    with (
        _site(args.sandboxes, args.lines) as site,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )
        found = measure(browser, site, args.watch_s)
        browser.close()
    print(json.dumps(found))


def measure(browser: Browser, site: dict[str, Any], watch_s: float) -> dict[str, Any]:
    signed_in = browser.new_context()
    page = signed_in.new_page()
    page.goto(site["sign_in"])
    page.get_by_role("main").get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/runs")
    state = signed_in.storage_state()
    signed_in.close()

    def fresh() -> BrowserContext:
        context = browser.new_context(
            storage_state=state, viewport={"width": 1440, "height": 900}
        )
        context.set_default_timeout(STEP_MS_MAX)
        context.add_init_script(WATCH)
        return context

    loads = [_run_page(fresh(), site["url"]) for _ in range(1 + LOADS)]
    logs = [_log_page(fresh(), site) for _ in range(LOADS)]
    idle = _cpu_ms_per_s(site["pid"], watch_s)
    costs = {n: _viewers_cost(fresh, site, n, watch_s, idle) for n in (1, VIEWERS)}
    return {
        "run_kb": max(load["kb"] for load in loads),
        "run_again_kb": max(load["again_kb"] for load in loads),
        "run_lcp_first_ms": round(loads[0]["lcp"]),
        "run_lcp_ms": round(statistics.median(load["lcp"] for load in loads[1:])),
        "run_drawn_ms": round(statistics.median(load["drawn"] for load in loads[1:])),
        "shift": round(max(load["shift"] for load in loads), 4),
        "log_first_ms": round(logs[0]["painted"]),
        "log_ms": round(statistics.median(log["painted"] for log in logs[1:])),
        "log_viewer_ms": round(statistics.median(log["viewer"] for log in logs[1:])),
        "log_find_ms": round(statistics.median(log["find"] for log in logs)),
        "idle_cpu_ms_per_s": round(idle, 2),
        "live_cpu_ms_alone": round(costs[1], 2),
        "live_cpu_ms_each": round(costs[VIEWERS], 2),
        "live_cpu_ms_more": round(
            (VIEWERS * costs[VIEWERS] - costs[1]) / (VIEWERS - 1), 2
        ),
        "viewers": VIEWERS,
    }


def _run_page(context: BrowserContext, url: str) -> dict[str, float]:
    """The first load of a sealed Run's page, and the same again from the cache."""
    page = context.new_page()
    began = time.monotonic()
    page.goto(f"{url}/runs/{SEALED}")
    _until(
        page,
        "[...document.querySelectorAll('[data-chart]')].every((c) =>"
        " c.dataset.drawn || c.dataset.why !== undefined)",
    )
    drawn = 1_000 * (time.monotonic() - began)
    page.wait_for_load_state("networkidle")
    seen = page.evaluate("window.seen")
    sizes = page.evaluate(SIZES)
    page.goto(f"{url}/runs/{SEALED}")
    page.wait_for_load_state("networkidle")
    again = page.evaluate(SIZES)
    context.close()
    kilo = {"kb": round(sizes / 1_000), "again_kb": round(again / 1_000)}
    return {**seen, **kilo, "drawn": drawn}


def _log_page(context: BrowserContext, site: dict[str, Any]) -> dict[str, float]:
    """Until the first lines of a long log are painted, and until one is found."""
    page = context.new_page()
    page.goto(f"{site['url']}/runs/{SEALED}/shards/0#log")
    _until(page, "window.seen.viewer > 0")
    seen = page.evaluate("window.seen")
    says = "document.querySelector('[data-says]').textContent"
    _until(page, f"{says} === '{site['lines']:,} lines'")
    began = time.monotonic()
    page.get_by_role("searchbox").fill(NEEDLE)
    page.locator(".log-line.is-current mark").first.wait_for()
    found = 1_000 * (time.monotonic() - began)
    context.close()
    return {"painted": seen["log"], "viewer": seen["viewer"], "find": found}


def _until(page: Page, script: str) -> None:
    """wait_for_function evaluates text in the page, which its policy forbids."""
    for _ in range(STEP_MS_MAX // LOOK_MS):
        if page.evaluate(script):
            return
        page.wait_for_timeout(LOOK_MS)
    raise SystemExit(f"not within {STEP_MS_MAX / 1_000:g} s: {script}")


def _viewers_cost(
    fresh: Any, site: dict[str, Any], count: int, watch_s: float, idle: float
) -> float:
    """The site's CPU ms in each second, for each of so many who watch a live Run."""
    pages: list[Page] = []
    for _ in range(count):
        pages.append(fresh().new_page())
        pages[-1].goto(f"{site['url']}/runs/{LIVE}")
        pages[-1].locator("[data-chart] .scatterlayer").first.wait_for(state="attached")
    pages[0].wait_for_timeout(1_000 * SETTLE_S)
    polls: list[str] = []
    for page in pages:
        page.on("request", lambda r: polls.append(r.url))
    cpu = _cpu_ms_per_s(site["pid"], watch_s, pages[0])
    seen = len([url for url in polls if "live.json" in url])
    assert seen >= 0.5 * count * watch_s, f"{seen} polls of {count} in {watch_s} s"
    for page in pages:
        page.context.close()
    return (cpu - idle) / count


def _cpu_ms_per_s(pid: int, seconds: float, page: Page | None = None) -> float:
    before, began = _cpu_ms(pid), time.monotonic()
    if page is None:
        time.sleep(seconds)
    else:
        page.wait_for_timeout(1_000 * seconds)  # so that the browser's events come in
    return (_cpu_ms(pid) - before) / (time.monotonic() - began)


def _cpu_ms(pid: int) -> float:
    """Of the site's process, all its threads: pages, ClickHouse and all."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return 1_000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _site(sandboxes: int, lines: int) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as scratch:
        site = subprocess.Popen(
            [
                *(sys.executable, "-m", "bench.pages_site"),
                *(scratch, str(sandboxes), str(lines)),
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert site.stdout is not None
        try:
            line = site.stdout.readline()
            if not line:
                raise SystemExit("the site did not start")
            yield json.loads(line)
        finally:
            site.communicate(timeout=START_S_MAX)  # closes its stdin: it leaves


if __name__ == "__main__":
    main()
