"""/api/v1: what was measured. Exact numbers, straight from the judged record."""

from __future__ import annotations

from typing import Any, Literal

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.utils import timezone
from ninja import Query, Router, Schema
from ninja.errors import HttpError

from runs import objects, rebuild, results, told
from runs.api.access import is_operator, record_or_404, run_or_404
from runs.clickhouse.sandbox_rows import PAGE_MAX
from runs.filters import SandboxFilter, parse
from runs.leaderboard import shown_boards
from runs.models import Run, State

STEP_MS_MAX = 3_600_000
LOG_LINES_MAX = 5_000
LINK_LIFETIME_S = 3_600
RAW_LINKS_MAX = 1_000

router = Router(tags=["record"])


@router.get("/runs/{code}/curve")
def curve(
    request: HttpRequest,
    code: str,
    step_ms: int = 1_000,
    clock: Literal["corrected", "raw"] = "corrected",
) -> Any:
    """proven, possible and implied at T0 + k·step_ms, each exact at its instant.

    A very small step over a long Run is widened; the answer says which it took.
    """
    if not 1 <= step_ms <= STEP_MS_MAX:
        raise HttpError(422, f"step_ms must be from 1 to {STEP_MS_MAX}")
    run = run_or_404(request, code)
    found = results.curve(run, step_ms, corrected=clock == "corrected")
    return found or {"t0_us": None, "step_ms": step_ms, "points": []}


@router.get("/runs/{code}/latency")
def latency(request: HttpRequest, code: str) -> Any:
    """Per phase, of those that succeeded and of all observed, with intervals."""
    return results.latency(run_or_404(request, code))


@router.get("/runs/{code}/submission")
def submission(request: HttpRequest, code: str) -> Any:
    """TTI of the first 25 %, middle 50 % and last 25 % of submissions."""
    return results.by_submission(run_or_404(request, code))


@router.get("/runs/{code}/causes")
def causes(request: HttpRequest, code: str) -> Any:
    """Counts by (outcome, cause, origin), each with an example.

    Until the Run is sealed as its agents tell them, then by its record.
    """
    run = run_or_404(request, code)
    live = run.state != State.SEALED
    return {"items": told.causes(run) if live else results.causes(run)}


@router.get("/runs/{code}/deaths")
def deaths(request: HttpRequest, code: str, step_ms: int = 1_000) -> Any:
    """Deaths over time, each known only to lie between two probes."""
    if not 1 <= step_ms <= STEP_MS_MAX:
        raise HttpError(422, f"step_ms must be from 1 to {STEP_MS_MAX}")
    return {"items": results.deaths(run_or_404(request, code), step_ms)}


@router.get("/runs/{code}/shards")
def shards(request: HttpRequest, code: str) -> Any:
    """One row a Shard: state, attempts, outcomes, health, verdict, clock bound."""
    return {"items": results.shards(run_or_404(request, code))}


@router.get("/runs/{code}/shards/{index}/log")
def log(
    request: HttpRequest,
    code: str,
    index: int,
    attempt: int | None = None,
    q: str = "",
    level: str = "",
    after: str = "",
    limit: int = 500,
) -> Any:
    """Lines with stable numbers; `next` is what to give as `after`, null at the end."""
    if not 1 <= limit <= LOG_LINES_MAX:
        raise HttpError(422, f"limit must be from 1 to {LOG_LINES_MAX}")
    run = record_or_404(request, code)
    if not 0 <= index < int(run.plan["shard_count"]):
        raise HttpError(404, f"Run {code} has no Shard {index}")
    try:
        return results.log(
            run,
            index,
            attempt=attempt,
            q=q,
            level=level.upper(),
            after=after or None,
            limit=limit,
        )
    except ValueError as error:
        raise HttpError(422, str(error)) from None


@router.get("/runs/{code}/log")
def search_log(
    request: HttpRequest,
    code: str,
    q: str,
    level: str = "",
    offset: int = 0,
    limit: int = 200,
) -> Any:
    """Lines of every Shard's log that contain `q`; how many each Shard has."""
    if not q or not 1 <= limit <= LOG_LINES_MAX or not 0 <= offset <= 1_000_000:
        raise HttpError(422, f"q is needed; limit is from 1 to {LOG_LINES_MAX}")
    run = record_or_404(request, code)
    return results.log_search(run, q, level=level.upper(), offset=offset, limit=limit)


class SandboxParameters(Schema):
    """What narrows and orders Sandboxes, as in the explorer's address; all optional."""

    outcome: str = ""
    cause: str = ""
    origin: str = ""
    shard: str = ""
    of: str = ""
    least_ms: str = ""
    most_ms: str = ""
    alive: str = ""
    at_ms: str = ""
    died_ms: str = ""
    rank: str = ""
    suspended: str = ""
    q: str = ""
    sort: str = ""


Chosen = Query[SandboxParameters]


@router.get("/runs/{code}/sandboxes")
def sandboxes(
    request: HttpRequest,
    code: str,
    chosen: Chosen,
    after: str = "",
    limit: int = 100,
) -> Any:
    """Rows ordered by `sort` (`-tti`: slowest first); `next` is the next `after`."""
    if not 1 <= limit <= PAGE_MAX:
        raise HttpError(422, f"limit must be from 1 to {PAGE_MAX}")
    run = run_or_404(request, code)
    try:
        return results.sandboxes(run, _filter(chosen), after=after, limit=limit)
    except ValueError as error:
        raise HttpError(422, str(error)) from None


@router.get("/runs/{code}/sandboxes.csv")
def sandboxes_csv(request: HttpRequest, code: str, chosen: Chosen) -> HttpResponse:
    """The same rows, all of them, as CSV."""
    run = run_or_404(request, code)
    return _file(run, _filter(chosen), "csv", "text/csv")


@router.get("/runs/{code}/sandboxes.parquet")
def sandboxes_parquet(request: HttpRequest, code: str, chosen: Chosen) -> HttpResponse:
    """The same rows, all of them, as Parquet."""
    run = run_or_404(request, code)
    kind = "application/vnd.apache.parquet"
    return _file(run, _filter(chosen), "parquet", kind)


@router.get("/runs/{code}/distribution")
def distribution(
    request: HttpRequest, code: str, phase: Literal["create", "ready", "tti"] = "tti"
) -> Any:
    """Latencies by size (bins equal on a log scale) and by order of submission."""
    run = run_or_404(request, code)
    return {
        "by_size": results.by_size(run, phase),
        "by_submission": results.in_submission_order(run, phase),
    }


@router.get("/runs/{code}/start")
def start(request: HttpRequest, code: str) -> Any:
    """Start skew and harness delay of each Shard, in µs."""
    return {"items": results.start(run_or_404(request, code))}


@router.get("/runs/{code}/sandboxes/{sandbox}/events")
def sandbox_events(request: HttpRequest, code: str, sandbox: int) -> Any:
    """Every event of one Sandbox, in the order of its record."""
    run = run_or_404(request, code)
    if not 0 <= sandbox < int(run.plan["sandbox_count"]):
        raise HttpError(404, f"Run {code} has no Sandbox {sandbox}")
    return {"items": results.sandbox_events(run, sandbox)}


@router.get("/runs/{code}/defects")
def defects(request: HttpRequest, code: str, limit: int = 1_000) -> Any:
    """What could not be read of the raw record: key, line and reason."""
    if not 1 <= limit <= 10_000:
        raise HttpError(422, "limit must be from 1 to 10000")
    run = run_or_404(request, code)
    items = results.defects(run, limit)
    if not (is_operator(request) or run.logs_published):
        # A line that was set aside is raw record: it may name hosts and addresses.
        items = [row | {"detail": ""} if row["line"] else row for row in items]
    return {"items": items}


@router.get("/runs/{code}/manifest")
def manifest(request: HttpRequest, code: str) -> HttpResponse:
    """manifest.json as it was written when the Run was sealed."""
    run = run_or_404(request, code)
    body = objects.get(f"runs/{run.code}/manifest.json")
    if run.state != State.SEALED or body is None:
        raise HttpError(404, f"Run {code} has no manifest: it is {run.state}")
    return HttpResponse(body, content_type="application/json")


@router.get("/runs/{code}/raw")
def raw(request: HttpRequest, code: str, after: str = "", limit: int = 200) -> Any:
    """The Run's objects in key order, each with a link that works for an hour."""
    if not 1 <= limit <= RAW_LINKS_MAX:
        raise HttpError(422, f"limit must be from 1 to {RAW_LINKS_MAX}")
    run = record_or_404(request, code)
    rows: list[dict[str, Any]] = []
    for item in objects.listing(f"runs/{run.code}/", after=after):
        if len(rows) == limit:
            return {"items": rows, "next": rows[-1]["key"]}
        url = objects.get_url(item.key, LINK_LIFETIME_S)
        rows.append({"key": item.key, "bytes": item.bytes, "url": url})
    return {"items": rows, "next": None}


@router.get("/runs/{code}/late")
def late(request: HttpRequest, code: str) -> Any:
    """Objects that came after sealing: they are kept, and change nothing."""
    return {"items": rebuild.late(run_or_404(request, code).code) or []}


@router.get("/leaderboard", tags=["leaderboard"])
def leaderboard(request: HttpRequest) -> Any:
    """Ranked Providers by class, with intervals, Runs and every ranked launch."""
    public = not is_operator(request)
    return {"items": shown_boards(timezone.now(), public=public)}


def _filter(chosen: SandboxParameters) -> SandboxFilter:
    try:
        return parse(chosen.model_dump())
    except ValueError as error:
        raise HttpError(422, str(error)) from None


def _file(
    run: Run, chosen: SandboxFilter, kind: Literal["csv", "parquet"], content: str
) -> HttpResponse:
    answer = StreamingHttpResponse(
        results.export(run, chosen, kind), content_type=content
    )
    name = f"{run.code}-sandboxes.{kind}"
    answer["Content-Disposition"] = f'attachment; filename="{name}"'
    return answer  # type: ignore[return-value]
