"""The figures of a Run's charts: the curve, and the deaths over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.core.cache import cache
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.http import require_GET

from runs import charts, lifecycle, results
from runs.errors import QueryError
from runs.models import Run, State
from runs.views.runs import visible_to
from shardagent.wire import Plan

CURVE_POINTS = 800
CHARTS = ("curve", "deaths", "size", "submission", "start")
PHASES = ("create", "ready", "tti")
SEALED_KEPT_S = 3_600
LIVE_KEPT_S = 2  # however many watch, ClickHouse is asked once
_STEPS_MS = (10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 60_000)


@require_GET
def run_chart(request: HttpRequest, code: str) -> HttpResponse:
    """A figure for the page's chart, or why there is none."""
    found = get_object_or_404(visible_to(request), code=code)
    of = request.GET.get("of", "curve")
    clock = request.GET.get("clock", "run")
    phase = request.GET.get("phase", "tti")
    if of not in CHARTS or clock not in ("run", "raw") or phase not in PHASES:
        return HttpResponseBadRequest(
            f"of is one of {', '.join(CHARTS)}; clock is run or raw; "
            f"phase is one of {', '.join(PHASES)}"
        )
    if found.t0_us is None:
        return JsonResponse({"why": _no_curve(found)})
    key = f"chart:{found.code}:{found.sealed_at_us}:{of}:{clock}:{phase}"
    keep_s = SEALED_KEPT_S if found.state == State.SEALED else LIVE_KEPT_S
    try:
        figure = cache.get_or_set(
            key, lambda: _figure(found, of, clock, phase), timeout=keep_s
        )
    except QueryError:
        return JsonResponse({"why": "The curve cannot be read now; try again."})
    return JsonResponse(figure)


def _figure(found: Run, of: str, clock: str, phase: str) -> dict[str, Any]:
    match of:
        case "deaths":
            return _deaths_figure(found)
        case "size":
            return _size_figure(found, phase)
        case "submission":
            return _submission_figure(found, phase)
        case "start":
            return _start_figure(found)
    return _curve_figure(found, corrected=clock != "raw")


def _rows(found: Run) -> str:
    return reverse("sandboxes", args=[found.code])


def _curve_figure(found: Run, *, corrected: bool) -> dict[str, Any]:
    plan = lifecycle.plan_of(found)
    curve = results.curve(found, _step_ms(found), corrected=corrected)
    points = (curve or {}).get("points") or []
    if found.state != State.SEALED:
        points = _settled(points, plan)
    if not points:
        return {"why": _no_curve(found)}
    summary = found.summary or {}
    return charts.curve_figure(
        points,
        rows=_rows(found),
        target=plan.target or plan.sandbox_count,
        phases=_phases(found, points[-1]["elapsed_ms"] / 1_000),
        clock_bound_us=summary.get("clock_bound_us") if corrected else None,
        live=found.state != State.SEALED,
        verdict=found.doubt,
    )


def _settled(points: Sequence[Mapping[str, int]], plan: Plan) -> list[Any]:
    """A live curve as far as a probe of each Sandbox can have come in.

    After that proven(t) falls only because the next answers are not here yet.
    """
    if not points:
        return []
    lag_ms = 1_000 * (plan.probe_interval_s + 2 * plan.flush_interval_s)
    until = points[-1]["elapsed_ms"] - lag_ms
    return [point for point in points if point["elapsed_ms"] <= until]


def _deaths_figure(found: Run) -> dict[str, Any]:
    points = results.deaths(found, _step_ms(found))
    if not points:
        return {"why": "No sandbox died."}
    end_s = (_end_us(found) - (found.t0_us or 0)) / 1e6
    return charts.deaths_figure(
        points, rows=_rows(found), end_s=end_s, phases=_phases(found, end_s)
    )


def _size_figure(found: Run, phase: str) -> dict[str, Any]:
    bins = results.by_size(found, phase)
    if not bins:
        return {"why": f"No sandbox has a {phase} latency."}
    row = results.latency(found).get(phase) or {}
    marks = {name: row.get(f"{name.lower()}_us") for name in ("P50", "P95", "P99")}
    return charts.size_figure(bins, rows=_rows(found), phase=phase, marks=marks)


def _submission_figure(found: Run, phase: str) -> dict[str, Any]:
    bins = results.in_submission_order(found, phase)
    if not any(row["count"] for row in bins):
        return {"why": f"No sandbox has a {phase} latency."}
    return charts.submission_figure(bins, rows=_rows(found), phase=phase)


def _start_figure(found: Run) -> dict[str, Any]:
    shards = results.start(found)
    if not shards:
        return {"why": "No create was sent."}
    findings = {row["check"]: row for row in results.findings(found)}
    limit = findings.get("harness_delay_p99_ms", {}).get("suspect")
    page = reverse("run", args=[found.code])
    return charts.start_figure(shards, page=page, suspect_ms=limit)


def _step_ms(found: Run) -> int:
    wanted = (_end_us(found) - (found.t0_us or 0)) / 1_000 / CURVE_POINTS
    return next((step for step in _STEPS_MS if step >= wanted), _STEPS_MS[-1])


def _end_us(found: Run) -> int:
    """The last instant that charts show: the end, or now."""
    if found.state != State.SEALED:
        return max(lifecycle.now_us(found), (found.t0_us or 0) + 1)
    ends = [found.t_destroy_us, found.t_end_us, found.t_hold_us, found.sealed_at_us]
    return next((end for end in ends if end), (found.t0_us or 0) + 1)


def _phases(found: Run, end_s: float) -> list[charts.Phase]:
    t0 = found.t0_us or 0
    marks = [("burst", t0), ("hold", found.t_hold_us), ("teardown", found.t_end_us)]
    known = [(name, (at - t0) / 1e6) for name, at in marks if at is not None]
    ends = [*(at for _, at in known[1:]), end_s]
    return [
        charts.Phase(name, begin, max(begin, min(end, end_s)))
        for (name, begin), end in zip(known, ends, strict=True)
        if begin <= end_s
    ]


def _no_curve(found: Run) -> str:
    if found.state == State.SEALED:
        return "There is no curve: this Run ended before any create was sent."
    return "The curve begins with the burst."
