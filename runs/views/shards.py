"""Every Shard of a Run in a table, by any of its figures: the rows behind a check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_GET

from runs import results
from runs.errors import QueryError
from runs.templatetags.runs_format import figure, microseconds, thousands
from runs.views.runs import visible_to

PAGE = 200
PAGE_NUMBER_MAX = 1_000
# key, heading, how it reads, the check of the verdict it is judged by
COLUMNS = (
    ("troubled", "Not a success", thousands, ""),
    ("loop_lag_us", "Loop lag", microseconds, "loop_lag_ms"),
    ("cpu_pct", "CPU %", figure, "loop_cpu_pct"),
    ("steal_pct", "Steal %", figure, "steal_pct"),
    ("harness_delay_p99_us", "Delay P99", microseconds, "harness_delay_p99_ms"),
    ("harness_delay_max_us", "Delay max", microseconds, "harness_delay_max_ms"),
    ("cold_creates", "Cold creates", thousands, "cold_connections_pct"),
    ("clock_bound_us", "Clock bound", microseconds, "clock_bound_ms"),
    ("log_errors", "Log errors", thousands, ""),
    ("defects", "Defects", thousands, "raw_record"),
)
KEYS = tuple(key for key, *_ in COLUMNS)


@require_GET
def shards(request: HttpRequest, code: str) -> HttpResponse:
    found = get_object_or_404(visible_to(request), code=code)
    sort = request.GET.get("sort", "index")
    page_text = request.GET.get("page", "1")
    if sort not in (*KEYS, "index") or not page_text.isdecimal():
        sort, page_text = "index", "1"
    page = min(max(1, int(page_text)), PAGE_NUMBER_MAX)
    try:
        rows = [_with_trouble(row) for row in results.shards(found)]
    except QueryError:
        ctx = {"run": found, "unread": True}
        return render(request, "runs/shards.html", ctx, status=503)
    if sort != "index":
        rows.sort(key=lambda row: (-(_value(row, sort)), row["index"]))
    shown = rows[(page - 1) * PAGE : page * PAGE]
    tripped = {f["check"]: set(f["shards"] or ()) for f in results.findings(found)}
    ctx = {
        "run": found,
        "sort": sort,
        "page": page,
        "more": len(rows) > page * PAGE,
        "count": len(rows),
        "columns": [
            {"key": key, "label": label, "said": label[:1].lower() + label[1:]}
            if label[1:2].islower()
            else {"key": key, "label": label, "said": label}
            for key, label, *_ in COLUMNS
        ],
        "rows": [_shown(row, tripped) for row in shown],
    }
    return render(request, "runs/shards.html", ctx)


def _with_trouble(row: Mapping[str, Any]) -> dict[str, Any]:
    counts = row["outcomes"]
    good = counts.get("success", 0) + counts.get("pending", 0)
    return {**row, "troubled": sum(counts.values()) - good}


def _value(row: Mapping[str, Any], key: str) -> float:
    value = row.get(key)
    return float("-inf") if value is None else float(value)


def _shown(row: Mapping[str, Any], tripped: Mapping[str, set[int]]) -> dict[str, Any]:
    cells = [
        {
            "text": says(row.get(key)),
            "over": row["index"] in tripped.get(check, ()),
            "missing": row.get(key) is None,
        }
        for key, _, says, check in COLUMNS
    ]
    return {
        "index": row["index"],
        "state": row["state"],
        "verdict": row["verdict"],
        "attempts": row["attempts"],
        "cells": cells,
    }
