"""The figures of a Run's charts: the curve, and the deaths over time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.http import require_GET

from runs import charts, lifecycle, results
from runs.errors import QueryError
from runs.models import Run, State
from runs.views.packed import answer, by_cost, kept
from runs.views.runs import operator_watches, published
from shardagent.wire import Plan, Shape

CURVE_POINTS = 800
FIELDS = ("pk", "code", "state", "t0_us", "sealed_at_us", "stale")
CHARTS = ("curve", "deaths", "size", "submission", "start")
PHASES = ("create", "ready", "tti")
SILENCE_SHOWN = 3  # times as long as an answer may take
SEALED_KEPT_S = 3_600
LIVE_KEPT_S = 2.0  # however many watch, ClickHouse is asked once
LIVE_KEPT_S_MAX = 10.0  # an older one would not be live
LIVE_SHARE = 0.0075  # of the time; between two of them, agents tell how it goes on
_STEPS_MS = (10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 60_000)


@require_GET
def run_chart(request: HttpRequest, code: str) -> HttpResponse:
    """A figure for the page's chart, or why there is none."""
    visible = Run.objects.all() if operator_watches(request) else published()
    found = get_object_or_404(visible.only(*FIELDS), code=code)
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

    def drawn() -> tuple[dict[str, Any], float]:
        began = time.monotonic()
        figure = _figure(Run.objects.get(pk=found.pk), of, clock, phase)
        if found.state == State.SEALED:
            return figure, LIVE_KEPT_S if found.stale else SEALED_KEPT_S
        return figure, live_kept_s(figure, time.monotonic() - began)

    try:
        return answer(request, kept(key, drawn))
    except QueryError:
        return JsonResponse({"why": "The curve cannot be read now; try again."})


def live_kept_s(figure: Mapping[str, Any], took_s: float) -> float:
    """How long a live figure is handed out, by what it cost; an empty one, or
    why there is none, not for long: there may be one the next moment."""
    if "why" in figure or all(len(trace["x"]) < 2 for trace in figure["data"]):
        return LIVE_KEPT_S
    return by_cost(took_s, LIVE_KEPT_S, LIVE_KEPT_S_MAX, share=LIVE_SHARE)


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
    live_s = None
    if found.state != State.SEALED:
        live_s = (_end_us(found) - (found.t0_us or 0)) / 1e6
        points = _settled(found, points) or _nothing_yet(found)
    if not points:
        return {"why": _no_curve(found)}
    end_s = points[-1]["elapsed_ms"] / 1_000 if live_s is None else live_s
    summary = found.summary or {}
    return charts.curve_figure(
        points,
        rows=_rows(found),
        target=plan.target or plan.sandbox_count,
        phases=_phases(found, end_s),
        clock_bound_us=summary.get("clock_bound_us") if corrected else None,
        stairs=_stairs(found, plan),
        live_s=live_s,
        verdict=found.doubt,
    )


def _stairs(found: Run, plan: Plan) -> list[charts.Stair]:
    """A staircase as planned, with what was held once the Run is sealed."""
    load = plan.load
    if load.shape is not Shape.STAIRCASE:
        return []
    known = {row["step"]: row for row in (found.summary or {}).get("steps") or ()}
    stairs = []
    for step in range(load.steps):
        row = known.get(step + 1, {})
        begin, end = row.get("from_us"), row.get("to_us")
        middle = None
        if begin is not None and end is not None and found.t0_us is not None:
            middle = ((begin + end) / 2 - found.t0_us) / 1e6
        stairs.append(
            charts.Stair(
                from_s=step * load.step_s,
                planned=row.get("target")
                or -(-plan.sandbox_count * (step + 1) // load.steps),
                held=None if middle is None else row.get("held"),
                held_s=middle,
            )
        )
    return stairs


def _settled(found: Run, points: Sequence[Mapping[str, int]]) -> list[Any]:
    """A live curve as far as its Sandboxes have answered.

    Where many fell silent for good it goes on without them after a while.
    """
    if not points:
        return []
    plan, last_ms = lifecycle.plan_of(found), points[-1]["elapsed_ms"]
    lag_s = plan.probe_interval_s + 2 * plan.flush_interval_s
    least_ms = last_ms - 1_000 * SILENCE_SHOWN * lag_s
    answered_us = results.answered_until(found)
    if answered_us is not None:
        least_ms = max(least_ms, (answered_us - (found.t0_us or 0)) / 1_000)
    return [point for point in points if point["elapsed_ms"] <= least_ms]


def _nothing_yet(found: Run) -> list[dict[str, int]]:
    """Where a live curve begins: at T0 nothing was alive."""
    if found.t0_us is None or lifecycle.now_us(found) <= found.t0_us:
        return []
    return [{"elapsed_ms": 0, "proven": 0, "possible": 0, "implied": 0}]


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
