"""A Shard's log for the viewer: an index of places, and windows of lines by place."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any

from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBadRequest,
    JsonResponse,
)
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils.html import conditional_escape, format_html
from django.utils.safestring import SafeString, mark_safe
from django.views.decorators.http import require_GET

from runs import lifecycle, results
from runs.clickhouse.logs import LogView
from runs.errors import QueryError
from runs.models import Run, State
from runs.templatetags.runs_format import without_sequences
from runs.views.packed import answer, kept
from runs.views.runs import logs_visible_to
from runs.views.wrong import wrong

SEALED_KEPT_S = 3_600
WINDOW_MAX = 1_000
NUMBER_MAX = 10**12
QUERY_CHARS_MAX = 200
SEARCH_PAGE = 200
SEARCH_PAGES_MAX = 100
SHARDS_SHOWN = 40


@require_GET
def shard_log_index(request: HttpRequest, code: str, index: int) -> HttpResponse:
    """How many lines, where errors, matches of `q`, phases and line `number` are."""
    found = _run_of(request, code, index)
    try:
        view = _view(request, index)
        q = request.GET.get("q", "")[:QUERY_CHARS_MAX]
        number = _whole(request, "number")

        def told() -> tuple[Any, float]:
            found_there = results.log_index(found, view, q=q, number=number)
            return found_there, SEALED_KEPT_S

        if found.state != State.SEALED:
            return JsonResponse(told()[0])
        said = sha256(repr((view, q, number)).encode()).hexdigest()
        key = f"log-index:{found.code}:{found.sealed_at_us}:{said}"
        return answer(request, kept(key, told))
    except ValueError as error:
        return HttpResponseBadRequest(str(error), content_type="text/plain")
    except QueryError:
        return JsonResponse({"why": "The log cannot be read now."}, status=503)


@require_GET
def shard_log_window(request: HttpRequest, code: str, index: int) -> HttpResponse:
    """`limit` lines from place `first` on: [number, elapsed_us, level, text]."""
    found = _run_of(request, code, index)
    try:
        view = _view(request, index)
        first, limit = _whole(request, "first"), _whole(request, "limit") or 200
        lines = results.log_window(found, view, first, min(limit, WINDOW_MAX))
    except ValueError as error:
        return HttpResponseBadRequest(str(error), content_type="text/plain")
    except QueryError:
        return JsonResponse({"why": "The log cannot be read now."}, status=503)
    return JsonResponse({"first": first, "lines": lines})


@require_GET
def run_log(request: HttpRequest, code: str) -> HttpResponse:
    """A search over the logs of all Shards."""
    found = get_object_or_404(logs_visible_to(request), code=code)
    q = request.GET.get("q", "")[:QUERY_CHARS_MAX]
    level = request.GET.get("level", "").upper()
    page = min(max(1, _whole(request, "page", lenient=True) or 1), SEARCH_PAGES_MAX)
    if level and level not in results.LOG_LEVELS:
        said = f"level is one of {', '.join(results.LOG_LEVELS)}"
        back = reverse("run-log", args=[code])
        return wrong(request, said, back=back, to="Search the logs of all Shards")
    ctx: dict[str, Any] = {
        "run": found,
        "q": q,
        "level": level,
        "page": page,
        "levels": results.LOG_LEVELS,
    }
    if q:
        try:
            ctx |= _found(found, q, level, page)
        except QueryError:
            ctx["unread"] = True
    return render(request, "runs/run_log.html", ctx)


def _found(found: Run, q: str, level: str, page: int) -> dict[str, Any]:
    told = results.log_search(
        found, q, level=level, offset=(page - 1) * SEARCH_PAGE, limit=SEARCH_PAGE
    )
    shifts = {row["shard"] for row in told["items"]}
    return {
        "rows": [row | {"said": marked(row["text"], q)} for row in told["items"]],
        "total": told["total"],
        "shards": told["shards"][:SHARDS_SHOWN],
        "shard_count": len(told["shards"]),
        "shown_shards": len(shifts),
        "more": told["total"] > page * SEARCH_PAGE,
    }


def marked(text: str, q: str) -> SafeString:
    """The text, escaped, without terminal sequences, with what was sought marked."""
    plain = without_sequences(text)
    parts = re.split(f"({re.escape(q)})", plain, flags=re.IGNORECASE) if q else [plain]
    said = [
        format_html("<mark>{}</mark>", part) if place % 2 else conditional_escape(part)
        for place, part in enumerate(parts)
    ]
    return mark_safe("".join(said))  # noqa: S308  every part is escaped above


def _run_of(request: HttpRequest, code: str, index: int) -> Run:
    found = get_object_or_404(logs_visible_to(request), code=code)
    if index >= lifecycle.plan_of(found).shard_count:
        raise Http404(f"{code} has no Shard {index}")
    return found


def _view(request: HttpRequest, index: int) -> LogView:
    """`level` is the least that is shown; lines without one are shown with all."""
    level = request.GET.get("level", "").upper()
    if level and level not in results.LOG_LEVELS:
        raise ValueError(f"level is one of {', '.join(results.LOG_LEVELS)}")
    levels: tuple[str, ...] = ()
    if level:
        levels = results.LOG_LEVELS[results.LOG_LEVELS.index(level) :]
    return LogView(index, _whole(request, "attempt"), levels)


def _whole(request: HttpRequest, name: str, *, lenient: bool = False) -> int:
    text = request.GET.get(name, "") or "0"
    if not (text.isascii() and text.isdigit() and int(text) <= NUMBER_MAX):
        if lenient:
            return 0
        raise ValueError(f"{name} is a whole number")
    return int(text)
