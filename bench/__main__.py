"""`make bench`: every benchmark once, a table on stdout, and bench/latest.json.

Each row names its aim and says met or missed. QUICK=1 takes smaller sizes (some two
minutes); nothing here fails because a figure is missed. Names of parts, as
`python -m bench whole cost`, run only those and print; `million` is the largest Run.
RECORD=1, on an idle machine, also writes what the clients add to runs/overhead.json,
which Runs' pages quote.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PART_S_MAX = 3_600
MILLION_TIMES = 3  # the aims of 100,000 that pages and queries of a million may take


@dataclass(frozen=True, slots=True)
class Row:
    """One figure; aim is a bound from below where `least`."""

    name: str
    value: float
    unit: str
    aim: float | None = None
    least: bool = False

    @property
    def says(self) -> str:
        if self.aim is None:
            return ""
        met = self.value >= self.aim if self.least else self.value <= self.aim
        bound = "at least" if self.least else "at most"
        return f"{bound} {self.aim:,g}: {'met' if met else 'missed'}"


def agent(quick: bool) -> Iterator[Row]:
    found = _part("bench.agent_weight", "--json")
    yield Row("agent: installed distributions", found["distributions"], "", 20)
    yield Row("agent: on disk", found["megabytes"], "MB", 40)
    yield Row("agent: RSS after import", found["rss_megabytes"], "MB", 60)
    yield Row("agent: import", found["import_ms"], "ms")


def coverage(quick: bool) -> Iterator[Row]:
    found = _part("bench.coverage", "--runs", "40" if quick else "300")
    yield Row("intervals of P99: coverage", found["p99_coverage"], "", 0.93, least=True)
    yield Row("bootstrap of 100,000 rows", found["bootstrap_s"], "s", 2)


def ingest(quick: bool) -> Iterator[Row]:
    events = 1_000_000 if quick else 5_000_000
    found = _part("bench.ingest_memory", "--events", str(events))
    size = f"{events // 1_000_000} M events"
    yield Row(f"ingest of {size}: site's memory over idle", found["rise_mb"], "MB", 300)
    yield Row("ingest, live, judged each pass", found["events_per_s"], "events/s")


def rebuild(quick: bool) -> Iterator[Row]:
    count = 10_000 if quick else 100_000
    found = _part("bench.rebuild", "--sandboxes", str(count))
    aim = None if quick else 60
    yield Row(f"rebuild of {count:,} sandboxes", found["seconds"], "s", aim)
    rate, per = found["insert_events_per_s"], "events/s"
    yield Row("events into the final tables", rate, per, 400_000, least=True)


def fairness(quick: bool) -> Iterator[Row]:
    words = ["--record"] if os.environ.get("RECORD", "") not in ("", "0") else []
    rounds = "2" if quick else "5"
    found = _part("bench.fairness", "--json", "--rounds", rounds, *words)
    for row in found["rows"]:
        name = f"{row['vendor']} {row['transport']}: added to create, P99 at 100"
        aim = 20 if row["transport"] == "thin" else None
        yield Row(name, row["p99_ms"], "ms", aim)


def pages(quick: bool) -> Iterator[Row]:
    count, lines = (10_000, 20_000) if quick else (100_000, 100_000)
    yield from _pages(count, lines, 8 if quick else 20)


def _pages(count: int, lines: int, watch_s: int, times: int = 1) -> Iterator[Row]:
    """The pages of a Run of so many; `times` the aims that hold for 100,000."""
    found = _part(
        *("bench.pages", "--sandboxes", str(count), "--lines", str(lines)),
        *("--watch-s", str(watch_s)),
    )
    run, log = f"Run page of {count:,}", f"log page of {lines:,} lines"
    lcp_ms, log_ms, watch_ms = 1_500 * times, 1_000 * times, 5 * times
    yield Row(f"{run}: first load", found["run_kb"], "KB", 700 * times)
    yield Row(f"{run}: again", found["run_again_kb"], "KB")
    yield Row(f"{run}: LCP, site just up", found["run_lcp_first_ms"], "ms", lcp_ms)
    yield Row(f"{run}: LCP, P50 of 5", found["run_lcp_ms"], "ms", lcp_ms)
    yield Row(f"{run}: every chart drawn", found["run_drawn_ms"], "ms")
    yield Row(f"{run}: layout shift", found["shift"], "", 0.02)
    yield Row(f"{log}: painted first", found["log_first_ms"], "ms", log_ms)
    yield Row(f"{log}: painted, P50", found["log_ms"], "ms", log_ms)
    yield Row(f"{log}: all in the viewer, P50", found["log_viewer_ms"], "ms")
    yield Row(f"{log}: find in all", found["log_find_ms"], "ms", log_ms)
    each = f"live page of {count:,}: site's CPU a viewer and second"
    yield Row(f"{each}, {found['viewers']}", found["live_cpu_ms_each"], "ms", watch_ms)
    yield Row(f"{each}, one more", found["live_cpu_ms_more"], "ms", watch_ms)
    yield Row(f"{each}, alone", found["live_cpu_ms_alone"], "ms")


def whole(quick: bool) -> Iterator[Row]:
    """A whole Run, and as a burst that this machine cannot carry."""
    count = 10_000 if quick else 100_000
    yield from _whole(count, quick)


def _whole(count: int, quick: bool) -> Iterator[Row]:
    found = _part("bench.run", "--sandboxes", str(count))
    name = f"Run of {count:,}"
    large = count >= 300_000
    yield Row(
        f"{name}: launch to sealed",
        found["launch_to_sealed_s"],
        "s",
        None if quick else 1_200 if large else 360,
    )
    share = (found["held_share"] or 0) * 100
    yield Row(f"{name}: Held of those truly alive", share, "%", 99.5, least=True)
    yield Row(f"{name}: VALID", found["verdict"] == "VALID", "", 1, least=True)
    clean = bool(found["certificate_clean"])
    yield Row(f"{name}: certificate clean", clean, "", 1, least=True)
    delay_ms = found["harness_delay_p99_ms"] or 0.0
    yield Row(f"{name}: harness delay, P99", delay_ms, "ms", 20)
    yield Row(f"{name}: loop lag, max", found["loop_lag_ms"] or 0.0, "ms", 100)
    yield Row(f"{name}: agents together", found["agents_mb"], "MB", 4_000)
    yield Row(f"{name}: site", found["site_mb"], "MB", 1_500)
    yield Row(f"{name}: everything", found["all_mb"], "MB", 20_000)


def cost(quick: bool) -> Iterator[Row]:
    found = _part("bench.agent_cost", "--rounds", "2" if quick else "3")
    ours = found["ours"]
    yield Row("agent: CPU a sandbox over HTTP, warm", ours["cpu_ms"], "ms", 1.5)
    yield Row("agent: the same, with connecting", ours["cold_cpu_ms"], "ms")
    yield Row("agent: added to create, P99, cold", ours["cold_p99_ms"], "ms", 100)
    yield Row("agent: added to create, P99, warm", ours["warm_p99_ms"], "ms", 15)
    yield Row("agent: RSS with 100 sandboxes", ours["rss_mb"], "MB")
    for name, said in (("httpx", "httpx, HTTP/1.1"), ("sdk", "E2B's SDK")):
        other = found[name]
        times = other["cpu_ms"] / ours["cpu_ms"]
        yield Row(f"{said}: CPU a sandbox, times ours", times, "")
        yield Row(f"{said}: added to create, P99, warm", other["warm_p99_ms"], "ms")


def control_plane(quick: bool) -> Iterator[Row]:
    sizes = ((500, 15),) if quick else ((2_000, 120), (5_000, 30))
    for agents, seconds in sizes:
        words = ("--agents", str(agents), "--seconds", str(seconds))
        found = _part("bench.control_plane", *words)
        name = f"heartbeats of {agents:,} agents every 5 s"
        aim = 50 if agents <= 2_000 else None
        yield Row(f"{name}: P99", found["p99_ms"], "ms", aim)
        yield Row(f"{name}: errors", found["errors"], "", 0)
        yield Row(f"{name}: not recorded", found["not_recorded"], "", 0)
        yield Row(f"{name}: site's CPU each", found["site_cpu_ms_per_beat"], "ms")


def queries(quick: bool) -> Iterator[Row]:
    yield from _queries(10_000 if quick else 100_000, 10 if quick else 50)


def _queries(count: int, calls: int, times: int = 1) -> Iterator[Row]:
    words = ("--sandboxes", str(count), "--calls", str(calls))
    found = _part("bench.queries", *words)
    for name, took in found["queries"].items():
        aim = 50 if name in ("client curve", "api leaderboard") else 100
        yield Row(f"{name} of {count:,}, P95", took["p95_ms"], "ms", aim * times)


def million() -> Iterator[Row]:
    """What `make bench-million` measures; some 36 minutes."""
    yield from _whole(1_000_000, quick=False)
    yield from _queries(1_000_000, 20, MILLION_TIMES)
    yield from _pages(1_000_000, 100_000, 20, MILLION_TIMES)


PARTS: tuple[Callable[[bool], Iterator[Row]], ...] = (
    agent,
    coverage,
    ingest,
    rebuild,
    fairness,
    cost,
    control_plane,
    queries,
    pages,
    whole,
)


def main() -> None:
    quick = os.environ.get("QUICK", "") not in ("", "0")
    chosen = sys.argv[1:]
    largest = chosen == ["million"]
    known = {part.__name__: part for part in PARTS}
    if not largest and not set(chosen) <= set(known):
        raise SystemExit(f"parts are {', '.join(known)}, or million")
    parts = [known[name] for name in chosen or known] if not largest else []
    rows: list[Row] = []
    began = time.monotonic()
    for row in million() if largest else (r for part in parts for r in part(quick)):
        rows.append(row)
        print(f"{row.name:<56}{row.value:>14,.6g} {row.unit:<10} {row.says}")
        sys.stdout.flush()
    found = {
        "machine": machine(),
        "quick": quick,
        "took_s": round(time.monotonic() - began),
        "rows": [{**asdict(row), "says": row.says} for row in rows],
    }
    name = "million.json" if largest else "latest.json"
    if not chosen or largest:  # parts alone are printed only
        (ROOT / "bench" / name).write_text(json.dumps(found, indent=1) + "\n")


def machine() -> dict[str, Any]:
    memory = Path("/proc/meminfo").read_text().split()[1]
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory) / 1024 / 1024, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _part(module: str, *words: str) -> dict[str, Any]:
    """Run one benchmark as a process of its own; the last line is its JSON."""
    done = subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PART_S_MAX,
        check=False,
    )
    lines = done.stdout.strip().splitlines()
    if not lines:
        raise SystemExit(f"{module} said nothing: {done.stderr[-1_000:]}")
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


if __name__ == "__main__":
    main()
