"""One Shard: its agent's health, sandboxes, log. The URL is the state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.core.cache import cache
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBadRequest,
    StreamingHttpResponse,
)
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.http import require_GET

from runs import lifecycle, results
from runs.api.shapes import OUTCOMES
from runs.errors import QueryError
from runs.models import LIVE_STATES, Run, State
from runs.strips import axis_of, strip
from runs.templatetags.runs_format import LETTERS, words
from runs.views.runs import logs_visible_to, may_see_logs, visible_to
from runs.views.shard_health import health_rows
from runs.views.wrong import wrong
from shardagent.wire import Plan

STRIPS_PAGE = 200
LOG_PAGE = 200  # lines, where there are no scripts
DOWNLOAD_PAGE = 5_000
DOWNLOAD_PAGES_MAX = 2_000
QUERY_CHARS_MAX = 200
FOLLOW_EVERY_MS = 2_000
SEALED_KEPT_S = 3_600
LIVE_KEPT_S = 5
# What shard.js imports, so that a browser need not find out one after another.
SCRIPTS = (
    "js/log_view.js",
    "js/heights.js",
    "js/log_blocks.js",
    "js/log_line.js",
    "js/ansi.js",
)
BAD_KINDS = ("create_failed", "readiness_failed", "dead", "orphaned", "lost")


@dataclass(frozen=True, slots=True)
class ShardQuery:
    """What the query string of the page asks for."""

    sandbox: int | None
    outcome: str
    page: int
    q: str
    level: str
    attempt: int | None
    after: str | None
    wrap: bool

    @classmethod
    def parse(cls, given: Mapping[str, str]) -> ShardQuery:
        """ValueError, in words, where a value cannot be."""
        outcome, level = given.get("outcome", ""), given.get("level", "").upper()
        if outcome and outcome not in (*OUTCOMES, "pending"):
            raise ValueError(f"outcome is one of {', '.join(OUTCOMES)}")
        if level and level not in results.LOG_LEVELS:
            raise ValueError(f"level is one of {', '.join(results.LOG_LEVELS)}")
        return cls(
            sandbox=_whole(given, "sandbox"),
            outcome=outcome,
            page=_whole(given, "page") or 1,
            q=given.get("q", "")[:QUERY_CHARS_MAX],
            level=level,
            attempt=_whole(given, "attempt"),
            after=given.get("after") or None,
            wrap=given.get("wrap") == "1",
        )


@require_GET
def shard(request: HttpRequest, code: str, index: int) -> HttpResponse:
    """The page; its log is read on by the viewer, or page by page without scripts."""
    found = get_object_or_404(visible_to(request), code=code)
    plan = lifecycle.plan_of(found)
    if index >= plan.shard_count:
        raise Http404(f"{code} has {plan.shard_count} Shards")
    try:
        query = ShardQuery.parse(request.GET.dict())
        ctx = {"run": found, "plan": plan, "index": index, "query": query}
        ctx["scripts"] = SCRIPTS
        ctx["may_see_logs"] = may_see_logs(request, found)
        if ctx["may_see_logs"]:
            ctx |= _log_context(found, index, query)
    except ValueError as error:
        back = reverse("shard", args=[code, index])
        return wrong(request, str(error), back=back, to=f"Shard {index}, unfiltered")
    ctx |= _header_context(found, index)
    ctx |= _lives_context(found, index, query, plan)
    return render(request, "runs/shard.html", ctx)


@require_GET
def shard_log(request: HttpRequest, code: str, index: int) -> HttpResponseBase:
    """The log as text, as far as the same filters let it through."""
    found = get_object_or_404(logs_visible_to(request), code=code)
    if index >= lifecycle.plan_of(found).shard_count:
        raise Http404
    try:
        query = ShardQuery.parse(request.GET.dict())
        first = _log_page(found, index, query, query.after, DOWNLOAD_PAGE)
    except ValueError as error:
        return HttpResponseBadRequest(str(error), content_type="text/plain")
    except QueryError:
        return HttpResponse("The log cannot be read now.", status=503)
    pages = _log_text(found, index, query, first)
    answer = StreamingHttpResponse(pages, content_type="text/plain; charset=utf-8")
    name = f"{code}-shard-{index}.log.txt"
    answer["Content-Disposition"] = f'attachment; filename="{name}"'
    return answer


def _header_context(found: Run, index: int) -> dict[str, Any]:
    """Who it is, how it fared, and where its neighbours are."""
    attempts = found.attempts.filter(shard=index).select_related("host")
    ctx: dict[str, Any] = {"attempts": list(attempts.order_by("number"))}
    try:
        if not ctx["attempts"]:  # it was rebuilt: the record knows
            ctx["attempts"] = results.carriers(found, index)
        row = _shard_row(found, index)
        known = _troubled_shards(found)
    except QueryError:
        return ctx | {"unread": True, "neighbours": {}}
    troubled = [at for at in known if at > index]
    before = [at for at in known if at < index]
    tripped = [f for f in results.findings(found) if index in (f["shards"] or ())]
    return ctx | {
        "shard": row,
        "tripped": tripped,
        "neighbours": {
            "next_troubled": min(troubled, default=None),
            "previous_troubled": max(before, default=None),
            "previous": index - 1 if index else None,
            "next": index + 1
            if index + 1 < lifecycle.plan_of(found).shard_count
            else None,
        },
    }


def _lives_context(
    found: Run, index: int, query: ShardQuery, plan: Plan
) -> dict[str, Any]:
    """Health and sandboxes on one time axis, and the events of the chosen one."""
    try:
        rows = results.shard_sandboxes(found, index)
        health = results.health(found, index)
        chosen = query.sandbox
        events = None if chosen is None else results.sandbox_events(found, chosen)
        story = results.shard_story(found, index)
    except QueryError:
        return {"unread": True}
    t0 = found.t0_us
    ends = found.t_destroy_us
    if found.state != State.SEALED:  # what is to come is not drawn
        ends = lifecycle.now_us(found)
    axis = axis_of(rows, health, _elapsed(ends, t0) or 0)
    counts = Counter(row["outcome"] for row in rows)
    wanted = [r for r in rows if not query.outcome or r["outcome"] == query.outcome]
    begin = (query.page - 1) * STRIPS_PAGE
    shown = wanted[begin : begin + STRIPS_PAGE]
    return {
        "sandbox_range": plan.sandboxes_of(index),
        "facets": [
            {"name": n, "words": words(n), "count": counts[n], "letter": LETTERS[n]}
            for n in (*OUTCOMES, "pending")
            if counts[n]
        ],
        "strips": [
            row | {"letter": LETTERS[row["outcome"]], "strip": strip(row, axis)}
            for row in shown
        ],
        "strips_of": len(wanted),
        "strips_more": begin + len(shown) < len(wanted),
        "chosen": next((r for r in rows if r["sandbox"] == chosen), None),
        "events": events,
        "story": _story(found, index, story, axis),
        "ticks": axis.ticks(),
        "bands": _bands(found, axis.to_us, axis),
        "health": health_rows(found, health, axis),
    }


def _story(
    found: Run, index: int, story: Sequence[Mapping[str, Any]], axis: Any
) -> list[dict[str, Any]]:
    """What happened, with the site's own verdicts, placed on the axis of the lives."""
    rows = [dict(row) for row in story]
    t0 = found.t0_us
    for attempt in found.attempts.filter(shard=index, lost_at_us__isnull=False):
        lost = {"kind": "lost", "text": "the site heard nothing of it any more"}
        rows.append(
            {**lost, "elapsed_us": _elapsed(attempt.lost_at_us, t0), "sandbox": None}
        )
    rows.sort(key=lambda row: row["elapsed_us"] or 0)
    for row in rows:
        at = row["elapsed_us"]
        row["bad"] = row["kind"] in BAD_KINDS
        row["place"] = f"{axis.x(at) / 10:.2f}%" if at is not None and at >= 0 else ""
    return rows


def _bands(found: Run, end_us: int, axis: Any) -> list[dict[str, Any]]:
    t0 = found.t0_us
    marks = [("burst", 0), ("hold", _elapsed(found.t_hold_us, t0))]
    marks.append(("teardown", _elapsed(found.t_end_us, t0)))
    known = [(name, at) for name, at in marks if at is not None and at <= end_us]
    ends = [*(at for _, at in known[1:]), end_us]
    return [
        {
            "name": name,
            "left": f"{axis.x(at) / 10:.2f}%",
            "width": f"{max(0.0, axis.x(end) - axis.x(at)) / 10:.2f}%",
        }
        for (name, at), end in zip(known, ends, strict=True)
    ]


def _log_context(found: Run, index: int, query: ShardQuery) -> dict[str, Any]:
    try:
        log = _log_page(found, index, query, query.after, LOG_PAGE)
    except QueryError:
        log = None
    return {
        "log": log,
        "levels": results.LOG_LEVELS,
        "attempt_numbers": found.attempts.filter(shard=index)
        .order_by("number")
        .values_list("number", flat=True),
        "live": found.state in LIVE_STATES and found.state != State.SEALED,
        "follow_every_ms": FOLLOW_EVERY_MS,
    }


def _log_page(
    found: Run, index: int, query: ShardQuery, after: Any, limit: int
) -> dict[str, Any]:
    page: dict[str, Any] = results.log(
        found,
        index,
        attempt=query.attempt,
        q=query.q,
        level=query.level,
        after=after,
        limit=limit,
    )
    return page


def _log_text(
    found: Run, index: int, query: ShardQuery, page: dict[str, Any]
) -> Iterator[str]:
    for _ in range(DOWNLOAD_PAGES_MAX):
        yield "".join(
            f"{line['attempt']} {line['number']} {line['at_us'] or '-'} "
            f"{line['level'] or '-'} {line['text']}\n"
            for line in page["lines"]
        )
        if page["next"] is None:
            return
        page = _log_page(found, index, query, page["next"], DOWNLOAD_PAGE)
    yield f"… cut after {DOWNLOAD_PAGES_MAX * DOWNLOAD_PAGE:,} lines\n"


def _shard_row(found: Run, index: int) -> dict[str, Any] | None:
    """What came of the Shard; of a sealed Run it does not change."""
    key = f"shard:{found.code}:{found.sealed_at_us}:{index}"
    row: dict[str, Any] | None = cache.get(key)
    if row is None:
        row = next(iter(results.shards(found, index)), None)
        if found.state == State.SEALED:
            cache.set(key, row, SEALED_KEPT_S)
    return row


def _troubled_shards(found: Run) -> list[int]:
    """Shards with anything amiss; of a sealed Run they do not change."""
    keep_s = SEALED_KEPT_S if found.state == State.SEALED else LIVE_KEPT_S
    key = f"troubled:{found.code}:{found.sealed_at_us}"
    known: list[int] | None = cache.get(key)
    if known is None:
        known = [row["index"] for row in results.shards(found) if _troubled(row)]
        cache.set(key, known, keep_s)
    return known


def _troubled(row: Mapping[str, Any]) -> bool:
    """Anything but a clean Shard: a verdict, errors in the log, failures."""
    counts = row["outcomes"]
    failures = sum(
        count for name, count in counts.items() if name not in ("success", "pending")
    )
    return bool(row["verdict"] not in (None, "VALID") or row["log_errors"] or failures)


def _elapsed(at_us: int | None, t0_us: int | None) -> int | None:
    return None if at_us is None or t0_us is None else at_us - t0_us


def _whole(given: Mapping[str, str], name: str) -> int | None:
    text = given.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise ValueError(f"{name} is a whole number")
    return int(text)
