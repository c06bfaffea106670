"""Every query behind a Run's pages, at ClickHouse and at the HTTP API.

    python -m bench.queries [--sandboxes N] [--calls 50]

A record of N Sandboxes is rebuilt from its bucket; then each query is asked so many
times. Also the leaderboard over 100 Runs. Prints JSON: P50 and P95 in ms.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from bench.records import plan_of, write
from bench.site_process import settle, site_at_rest

CODE = "bench-queries"
SEGMENTS_PER_SHARD = 2
BOARD_RUNS = 100
STEP_MS = 500
ANSWER_S_MAX = 120


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sandboxes", type=int, default=100_000)
    parser.add_argument("--calls", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as scratch:
        data = Path(scratch)
        plan = plan_of(CODE, options.sandboxes)
        write(data / "objects" / "raw", plan, SEGMENTS_PER_SHARD)
        with site_at_rest(data):
            print(json.dumps(measured(options.calls)))


def measured(calls: int) -> dict[str, Any]:
    from runs.rebuild import rebuild

    began = time.monotonic()
    run = rebuild(CODE)
    rebuilt_s = round(time.monotonic() - began, 1)
    settle()
    found = {
        name: timed(ask, calls)
        for name, ask in {**_at_client(run), **_at_api()}.items()
    }
    _more_runs(run)
    found["api leaderboard"] = timed(_get("/leaderboard"), calls)
    return {"rebuilt_s": rebuilt_s, "calls": calls, "queries": found}


def timed(ask: Callable[[], object], calls: int) -> dict[str, float]:
    """Of so many calls, after one that is not counted."""
    took = []
    for turn in range(calls + 1):
        began = time.perf_counter()
        ask()
        if turn:
            took.append((time.perf_counter() - began) * 1e3)
    took.sort()
    p95 = took[min(len(took) - 1, int(len(took) * 0.95))]
    return {"p50_ms": round(statistics.median(took), 1), "p95_ms": round(p95, 1)}


def _at_client(run: Any) -> dict[str, Callable[[], object]]:
    from runs import results
    from runs.clickhouse import causes, curves, latency, sandbox_rows, shards
    from runs.filters import SandboxFilter

    facts = results.facts_of(run)
    return {
        "client curve": lambda: curves.curve(facts, STEP_MS),
        "client peak": lambda: curves.peak(facts),
        "client latency": lambda: latency.latency(CODE),
        "client causes": lambda: causes.causes(CODE),
        "client shards": lambda: shards.shards(facts),
        "client sandboxes page": lambda: sandbox_rows.sandbox_rows(
            facts, SandboxFilter()
        ),
    }


def _at_api() -> dict[str, Callable[[], object]]:
    paths = {
        "curve": f"/curve?step_ms={STEP_MS}",
        "run with its peak": "",
        "latency": "/latency",
        "causes": "/causes",
        "shards": "/shards",
        "sandboxes page": "/sandboxes?limit=100",
    }
    return {f"api {name}": _get(f"/runs/{CODE}{path}") for name, path in paths.items()}


def _get(path: str) -> Callable[[], object]:
    from django.conf import settings

    from runs.operators import create_token, operator

    token = create_token(operator("bench"), "bench")
    request = urllib.request.Request(
        f"{settings.SITE_URL}/api/v1{path}",
        headers={"Authorization": f"Bearer {token}", "Accept-Encoding": "gzip"},
    )

    def ask() -> object:
        with urllib.request.urlopen(request, timeout=ANSWER_S_MAX) as answer:
            return answer.read()

    return ask


def _more_runs(run: Any) -> None:
    """A board of 100 ranked Runs of ten Providers on as many days."""
    from django.utils import timezone

    from runs.models import Run

    summary = {**run.summary, "labels": []}
    summary["verdict"] = {**summary["verdict"], "level": "VALID", "reasons": []}
    now = timezone.now()
    rows = []
    for number in range(BOARD_RUNS):
        plan = {**run.plan, "provider": f"bench-{number % 10}", "ranked": True}
        rows.append(
            Run(
                code=f"bench-board-{number}",
                provider=plan["provider"],
                state="sealed",
                plan={**plan, "witness": True, "hold_s": 60, "probe_interval_s": 8},
                summary=summary,
                ranked=True,
                launched_at=now - timedelta(days=number // 10),
                published_at=now,
                sealed_at_us=run.sealed_at_us,
                end_reason="completed",
            )
        )
    Run.objects.bulk_create(rows)


if __name__ == "__main__":
    main()
