"""Two to six Runs on one page; their codes in the address are the whole state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from runs import charts, comparison, lifecycle, results
from runs.api.shapes import run_json
from runs.comparison import RUNS_MAX, RUNS_MIN
from runs.errors import QueryError
from runs.headline import headline
from runs.models import Run, State
from runs.views.runs import visible_to

CURVE_POINTS = 400
LETTERS = "ABCDEF"


@require_GET
def compare(request: HttpRequest) -> HttpResponse:
    found, why = _chosen(request)
    if why:
        recent = visible_to(request).filter(state=State.SEALED)[:20]
        told = [(run, run_json(run)) for run in recent]
        rows = [
            {"run": run, "json": one, "headline": headline(one)} for run, one in told
        ]
        chosen = {run.code for run in found}
        ctx: dict[str, Any] = {"why": why, "rows": rows, "chosen": chosen}
        status = 200 if not request.GET else 400
        return render(request, "runs/compare.html", ctx, status=status)
    shown = [run_json(run) for run in found]
    tables = [_latency(run) for run in found]
    codes = [run.code for run in found]
    ctx = {
        "columns": [
            {"run": run, "json": one, "letter": letter, "headline": headline(one)}
            for run, one, letter in zip(found, shown, LETTERS, strict=False)
        ],
        "codes": ",".join(codes),
        "differences": comparison.plan_differences([run.plan for run in found]),
        "outcomes": comparison.held_rows(shown),
        "latency": comparison.latency_rows(tables, codes),
    }
    return render(request, "runs/compare.html", ctx)


@require_GET
def compare_chart(request: HttpRequest) -> HttpResponse:
    """The proven curves over one another, by time since each Run's own T0."""
    found, why = _chosen(request)
    if why:
        return JsonResponse({"why": why}, status=400)
    curves = []
    try:
        for run, letter in zip(found, LETTERS, strict=False):
            end_us = run.t_destroy_us or run.t_end_us or run.t0_us
            if run.t0_us is None or end_us is None:
                continue
            step_ms = max(10, round((end_us - run.t0_us) / 1_000 / CURVE_POINTS))
            points = (results.curve(run, step_ms) or {}).get("points") or []
            target = lifecycle.plan_of(run).target or run.plan["sandbox_count"]
            doubt = f" ({run.doubt})" if run.doubt else ""
            curves.append((f"{letter} {run.code}{doubt}", points, target))
    except QueryError:
        return JsonResponse({"why": "The curves cannot be read now; try again."})
    if not curves:
        return JsonResponse({"why": "None of these Runs has a curve."})
    return JsonResponse(charts.compare_figure(curves))


def _chosen(request: HttpRequest) -> tuple[Sequence[Run], str]:
    """The Runs in the order of the address, or why they cannot be compared."""
    given = ",".join(request.GET.getlist("runs"))
    codes = list(dict.fromkeys(code for code in given.split(",") if code))
    if len(codes) > RUNS_MAX:
        return [], f"At most {RUNS_MAX} Runs fit on one page; these are {len(codes)}."
    rows = {run.code: run for run in visible_to(request).filter(code__in=codes)}
    missing = [code for code in codes if code not in rows]
    if missing:
        return [], f"There is no Run {missing[0][:40]} here."
    found = [rows[code] for code in codes]
    unsealed = [run.code for run in found if run.state != State.SEALED]
    if unsealed:
        return [], f"{unsealed[0]} is not sealed yet; only results can be compared."
    if len(found) < RUNS_MIN:
        return found, f"Choose {RUNS_MIN} to {RUNS_MAX} sealed Runs."
    return found, ""


def _latency(run: Run) -> dict[str, Any]:
    try:
        return results.latency(run)
    except QueryError:
        return {}
