"""`make bench`: every benchmark once, a table on stdout, and bench/latest.json.

Each row names its aim and says met or missed. QUICK=1 takes smaller sizes (some two
minutes); nothing here fails because a figure is missed. RECORD=1, on an idle machine,
also writes what the clients add to runs/overhead.json, which Runs' pages quote.
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
PART_S_MAX = 1_200


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
    events = 1_000_000 if quick else 10_000_000
    found = _part("bench.ingest_memory", "--events", str(events))
    size = f"{events // 1_000_000} M events"
    yield Row(f"ingest of {size}: site's memory over idle", found["rise_mb"], "MB", 300)
    yield Row(
        "ingest, live, judged", found["events_per_s"], "events/s", 400_000, least=True
    )


def rebuild(quick: bool) -> Iterator[Row]:
    count = 10_000 if quick else 100_000
    found = _part("bench.rebuild", "--sandboxes", str(count))
    aim = None if quick else 60
    yield Row(f"rebuild of {count:,} sandboxes", found["seconds"], "s", aim)


def fairness(quick: bool) -> Iterator[Row]:
    words = ["--record"] if os.environ.get("RECORD", "") not in ("", "0") else []
    rounds = "2" if quick else "5"
    found = _part("bench.fairness", "--json", "--rounds", rounds, *words)
    for row in found["rows"]:
        name = f"{row['vendor']} {row['transport']}: added to create, P99 at 100"
        aim = 20 if row["transport"] == "thin" and row["vendor"] != "modal" else None
        yield Row(name, row["p99_ms"], "ms", aim)


PARTS: tuple[Callable[[bool], Iterator[Row]], ...] = (
    agent,
    coverage,
    ingest,
    rebuild,
    fairness,
)


def main() -> None:
    quick = os.environ.get("QUICK", "") not in ("", "0")
    rows: list[Row] = []
    began = time.monotonic()
    for part in PARTS:
        for row in part(quick):
            rows.append(row)
            print(f"{row.name:<44}{row.value:>14,.6g} {row.unit:<10} {row.says}")
            sys.stdout.flush()
    found = {
        "machine": machine(),
        "quick": quick,
        "took_s": round(time.monotonic() - began),
        "rows": [{**asdict(row), "says": row.says} for row in rows],
    }
    (ROOT / "bench" / "latest.json").write_text(json.dumps(found, indent=1) + "\n")


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
