"""The explorer: any Sandboxes of a Run as a table or a file. The URL is the state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

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

from runs import filters, results
from runs.errors import QueryError
from runs.filters import SandboxFilter, parse, sentence
from runs.models import Run
from runs.templatetags.runs_format import words
from runs.views.runs import visible_to
from runs.views.wrong import wrong

PAGE = 100
FACET_SHARDS_SHOWN = 12
FILES = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}
# name of the sort, heading, what it means
COLUMNS = (
    ("create", "Create", "create sent → created"),
    ("ready", "Ready", "created → readiness command ok"),
    ("tti", "TTI", "create sent → interactive"),
    ("probe", "Probes", "good and failed probes; sorts by the slowest good one"),
    ("delay", "Delay", "our own: sent − intended"),
)


@require_GET
def sandboxes(request: HttpRequest, code: str) -> HttpResponse:
    """A page of the Sandboxes that the query string asks for."""
    found = get_object_or_404(visible_to(request), code=code)
    try:
        chosen = parse(request.GET.dict())
        ctx = _context(found, chosen, request.GET.get("after", ""))
    except ValueError as error:
        back = reverse("sandboxes", args=[code])
        return wrong(request, str(error), back=back, to="All sandboxes of this Run")
    except QueryError:
        ctx = {"run": found, "unread": True, "chosen": chosen}
    return render(request, "runs/sandboxes.html", ctx | _choices())


@require_GET
def sandboxes_file(request: HttpRequest, code: str, kind: str) -> HttpResponseBase:
    """All rows of the same query string as a file; never all in memory."""
    found = get_object_or_404(visible_to(request), code=code)
    if kind not in FILES:
        raise Http404(f"{kind} is none of {', '.join(FILES)}")
    try:
        chosen = parse(request.GET.dict())
        rows = results.export(found, chosen, cast(Literal["csv"], kind))
        first = next(rows, b"")
    except ValueError as error:
        return HttpResponseBadRequest(str(error), content_type="text/plain")
    except QueryError:
        return HttpResponse("The rows cannot be read now; try again.", status=503)
    answer = StreamingHttpResponse(_chained(first, rows), content_type=FILES[kind])
    name = f"{found.code}-sandboxes.{kind}"
    disposition = "inline" if kind == "json" else "attachment"
    answer["Content-Disposition"] = f'{disposition}; filename="{name}"'
    return answer


def _chained(first: bytes, rest: Any) -> Any:
    yield first
    yield from rest


def _context(found: Run, chosen: SandboxFilter, after: str) -> dict[str, Any]:
    page = results.sandboxes(found, chosen, after=after, limit=PAGE)
    facets = results.facets(found, chosen)
    count = results.sandbox_count(found, chosen)
    return {
        "run": found,
        "chosen": chosen,
        "query": chosen.query(),
        "said": sentence(chosen),
        "conditions": [
            {"said": said, "query": without.query()}
            for said, without in filters.conditions(chosen)
        ],
        "count": count,
        "total": int(found.plan["sandbox_count"]),
        "after": after,
        "rows": [_row(row, found.t0_us) for row in page["items"]],
        "next": page["next"],
        "facets": [
            _facet(chosen, "outcome", facets["outcome"]),
            _facet(chosen, "cause", facets["cause"]),
            _facet(chosen, "origin", facets["origin"]),
            _facet(chosen, "shard", facets["shard"][:FACET_SHARDS_SHOWN]),
        ],
        "columns": [_column(chosen, *column) for column in COLUMNS],
        "by_number": _column(chosen, "sandbox", "Sandbox", "in order of its number"),
    }


def _choices() -> dict[str, Any]:
    return {
        "outcomes": filters.OUTCOMES,
        "causes": filters.CAUSES,
        "measures": filters.MEASURES,
    }


def _row(row: dict[str, Any], t0_us: int | None) -> dict[str, Any]:
    """The row, and when it was alive in µs since T0 on the Run's clock."""
    shift = row["clock_offset_us"] or 0

    def since(name: str) -> int | None:
        at = row[name]
        return None if at is None or t0_us is None else at + shift - t0_us

    return row | {
        "from_us": since("ready_us"),
        "until_us": since("last_ok_us"),
        "failed": row["outcome"] not in ("success", "pending"),
    }


def _facet(
    chosen: SandboxFilter, name: str, values: Sequence[tuple[Any, int]]
) -> dict[str, Any]:
    """Links with counts; the one that is chosen leads back."""
    current = getattr(chosen, name)
    empty: Any = None if name == "shard" else ""
    shown = [
        {
            "value": value,
            "words": words(value),
            "count": count,
            "chosen": value == current,
            "query": chosen.but(**{name: empty if value == current else value}).query(),
        }
        for value, count in values
    ]
    return {"name": name, "values": shown}


def _column(chosen: SandboxFilter, name: str, label: str, means: str) -> dict[str, Any]:
    """A heading that sorts: first the largest, then the smallest, for latencies."""
    first, second = (f"-{name}", name) if name != "sandbox" else ("", "-sandbox")
    current = chosen.sort if chosen.sort else "sandbox"
    by_this = chosen.sort_key == name
    return {
        "label": label,
        "means": means,
        "query": chosen.but(
            sort=second if current == (first or name) else first
        ).query(),
        "sorted": ("descending" if chosen.descending else "ascending")
        if by_this
        else "",
    }
