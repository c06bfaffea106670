"""One Run: what it found, live while it runs, and what an operator may do to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.cache import cache
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_POST

from runs import headline, launch, lifecycle, publication, results
from runs.api.shapes import outcomes_of
from runs.errors import ObjectsError, QueryError, StateError
from runs.models import Run, State
from runs.templatetags.runs_format import (
    thousands,
    words,
)
from runs.views import live
from runs.views.head import head
from runs.views.provenance import provenance
from runs.views.run_chart import PHASES
from runs.views.runs import visible_to

# Where the rows behind a check's value are.
_ROWS_OF = {
    "loop_lag_ms": "shards?sort=loop_lag_us",
    "loop_cpu_pct": "shards?sort=cpu_pct",
    "steal_pct": "shards?sort=steal_pct",
    "harness_delay_p99_ms": "shards?sort=harness_delay_p99_us",
    "harness_delay_max_ms": "shards?sort=harness_delay_max_us",
    "cold_connections_pct": "shards?sort=cold_creates",
    "clock_bound_ms": "shards?sort=clock_bound_us",
    "start_skew_p99_ms": "sandboxes?sort=-delay",
    "start_skew_max_ms": "sandboxes?sort=-delay",
    "harness_share_pct": "sandboxes?sort=-delay",
    "unobserved_pct": "sandboxes?outcome=unobserved",
    "raw_record": "shards?sort=defects",
}
_TONES = (
    ("clean", "all succeeded"),
    ("some", "up to 5 % did not"),
    ("many", "more than 5 % did not"),
    ("suspect", "SUSPECT"),
    ("invalid", "INVALID"),
    ("lost", "lost"),
    ("pending", "under way"),
)


DEFECTS_SHOWN_MAX = 50
CELLS_KEPT_S = 3_600  # of a sealed Run, whose Shards do not change
_PARTS = ("first", "middle", "last")  # of the submissions, 25, 50 and 25 %


@require_GET
def run(request: HttpRequest, code: str) -> HttpResponse:
    """The page: of a live Run what can be watched, of a sealed one all evidence."""
    found = get_object_or_404(visible_to(request), code=code)
    ctx = head(found)
    ctx["raw"] = request.GET.get("clock") == "raw"
    ctx |= _evidence(found) if found.state == State.SEALED else _watched(found, ctx)
    return render(request, "runs/run.html", ctx)


@require_GET
def run_markdown(request: HttpRequest, code: str) -> HttpResponse:
    """The result in a few lines, to be pasted into a report."""
    found = get_object_or_404(visible_to(request), code=code)
    ctx = head(found) | {"latency": _latency_rows(_asked(results.latency, found))}
    kind = "text/markdown; charset=utf-8"
    return render(request, "runs/run.md", ctx, content_type=kind)


@login_required
@require_POST
def run_launch(request: HttpRequest, code: str) -> HttpResponse:
    return _act(request, code, launch.launch, "The Run is queued.")


@login_required
@require_POST
def run_abort(request: HttpRequest, code: str) -> HttpResponse:
    said = "The Run ends now; what it recorded is kept."
    return _act(request, code, launch.abort, said)


@login_required
@require_POST
def run_publish(request: HttpRequest, code: str) -> HttpResponse:
    logs = request.POST.get("logs") == "on"

    def publish(found: Run, by: str) -> None:
        publication.publish(found, by, logs=logs)

    return _act(request, code, publish, "Everybody can see this Run now.")


@login_required
@require_POST
def run_unpublish(request: HttpRequest, code: str) -> HttpResponse:
    said = "Only operators can see this Run now."
    return _act(request, code, publication.unpublish, said)


def _watched(found: Run, ctx: dict[str, Any]) -> dict[str, Any]:
    """What a live Run shows beside its head; nothing that is asked of ClickHouse."""
    plan = lifecycle.plan_of(found)
    shards = live.live_shards(found, plan, ctx["beats"])
    return {
        "live_every_ms": live.POLL_EVERY_MS,
        "shards": live.cells(shards),
        "tones": tuple(live.TONES.values()),
        "how": provenance(found, plan),
        "plan_json": json.dumps(found.plan, indent=2, ensure_ascii=False),
        **live.agents_context(found, plan, shards, ctx["json"]),
    }


def _evidence(found: Run) -> dict[str, Any]:
    """The evidence; a part that cannot be read now says so, and the rest stands."""
    plan = lifecycle.plan_of(found)
    latency = _asked(results.latency, found)
    cells = shard_cells(found)
    defects = _defects(found)
    labels = {row.get("ci95_label") for row in (latency or {}).values()} - {None}
    return {
        "unread": None in (latency, cells),
        "latency": _latency_rows(latency),
        "submission": _submission_rows(found),
        "steps": (found.summary or {}).get("steps"),
        "highest_step_held": (found.summary or {}).get("highest_step_held"),
        "interval_label": next(iter(labels), None),
        "causes": _asked(results.causes, found),
        "findings": _findings(found),
        "certificate": (found.summary or {}).get("certificate"),
        "shards": cells,
        "tones": [t for t in _TONES if t[0] in {c["tone"] for c in cells or ()}],
        "outcomes_lost": outcomes_of(found)["unobserved"],
        "outcomes_died": outcomes_of(found)["partial"],
        "defects": defects,
        "defects_more": (found.summary or {}).get("defects", 0) > len(defects),
        "how": provenance(found, plan),
        "phases_with_spread": PHASES,
        "phase": "tti",
        "plan_json": json.dumps(found.plan, indent=2, ensure_ascii=False),
    }


def _defects(found: Run) -> list[dict[str, Any]]:
    """The first of them; a clean record is not asked for any."""
    if not (found.summary or {}).get("defects"):
        return []
    return _asked(lambda run: results.defects(run, DEFECTS_SHOWN_MAX), found) or []


def _findings(found: Run) -> list[dict[str, Any]]:
    """Every check, with the address of the rows its value was read from."""
    page = reverse("run", args=[found.code])
    return [
        {**row, "rows": f"{page}/{_ROWS_OF.get(row['check'], 'shards')}"}
        for row in results.findings(found)
    ]


def _submission_rows(found: Run) -> list[dict[str, Any]]:
    """Are early callers favoured? Of a sealed Run; a live one is not asked."""
    parts = (found.summary or {}).get("submission") or {}
    counts = outcomes_of(found)
    sent = counts["total"] - counts["not_attempted"]
    quarter, three = -(-sent // 4), -(-3 * sent // 4)
    places = {
        "first": (0, quarter - 1),
        "middle": (quarter, three - 1),
        "last": (three, sent - 1),
    }
    return [
        {
            "part": part,
            "rank": "{}-{}".format(*places[part]),
            "quantiles": [parts[part].get(f"p{q}_us") for q in (50, 95, 99)],
            **parts[part],
        }
        for part in _PARTS
        if part in parts
    ]


def shard_cells(found: Run) -> list[dict[str, Any]] | None:
    """The squares of the grid; None where ClickHouse does not answer."""
    key = f"cells:{found.code}:{found.sealed_at_us}"
    kept: list[dict[str, Any]] | None = cache.get(key)
    if kept is None:
        rows = _asked(results.shards, found)
        if rows is None:
            return None
        kept = [shard_cell(row) for row in rows]
        cache.set(key, kept, CELLS_KEPT_S)
    return kept


def _asked(question: Callable[[Run], Any], found: Run) -> Any:
    """None where ClickHouse does not answer."""
    try:
        return question(found)
    except QueryError:
        return None


def _latency_rows(found: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    return [
        {
            "phase": phase,
            "means": headline.LATENCIES[phase],
            "values": _values(row, ("p50_us", "p95_us", "p99_us", "max_us")),
            "waited": _values(
                row.get("from_intended"), ("p50_us", "p95_us", "p99_us", "max_us")
            ),
            "observed": _observed(row),
            **row,
        }
        for phase, row in (found or {}).items()
        if row and row["count"]
    ]


def _values(
    row: Mapping[str, Any] | None, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Each with its place in ms, from which the explorer shows the rows above it."""
    known = [(row or {}).get(name) for name in names]
    return [{"us": us, "ms": None if us is None else us / 1e3} for us in known]


def _observed(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of all observed, and what it were had the lost ones been best, or never come."""
    names = ("p50_us", "p99_us")
    found = _values(row.get("all_observed"), names)
    best, worst = row.get("at_best") or {}, row.get("at_worst") or {}
    lost = best.get("count", 0) - (row.get("all_observed") or {}).get("count", 0)
    extremes = [(best.get(name), worst.get(name)) for name in names]
    return [
        {**value, "lost": max(0, lost), "best": low, "worst": high}
        for value, (low, high) in zip(found, extremes, strict=True)
    ]


def shard_cell(row: Mapping[str, Any]) -> dict[str, Any]:
    """A square of the grid: its tone, and what it says."""
    counts = row["outcomes"]
    asked = sum(counts.values())
    good = counts.get("success", 0)
    bad = asked - good - counts.get("pending", 0)
    if row["verdict"] in ("SUSPECT", "INVALID"):
        tone = str(row["verdict"]).lower()
    elif row["state"] == "lost":
        tone = "lost"
    elif counts.get("pending", 0):
        tone = "pending"
    else:
        tone = "clean" if not bad else "some" if bad <= 0.05 * asked else "many"
    said = [f"{thousands(counts[n])} {words(n)}" for n in counts if counts[n]]
    if row["verdict"] and row["verdict"] != "VALID":
        said.insert(0, str(row["verdict"]))
    if row["state"]:
        said.insert(0, words(row["state"]))
    return {"index": row["index"], "tone": tone, "says": ", ".join(said)}


def _act(
    request: HttpRequest, code: str, act: Callable[[Run, str], None], said: str
) -> HttpResponse:
    found = get_object_or_404(Run, code=code)
    try:
        act(found, request.user.get_username())
    except (StateError, ObjectsError) as error:
        messages.error(request, str(error))
    else:
        messages.success(request, said)
    return redirect("run", code)
