"""One Run: what it found, live while it runs, and what an operator may do to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.cache import patch_vary_headers
from django.views.decorators.http import require_GET, require_POST

from runs import headline, launch, lifecycle, publication, results
from runs.api.shapes import OUTCOMES, outcomes_of, run_json
from runs.errors import ObjectsError, QueryError, StateError
from runs.models import Run, State
from runs.templatetags.runs_format import (
    duration,
    figure,
    outcome_letter,
    thousands,
    words,
)
from runs.views.runs import visible_to
from shardagent.wire import Plan

LIVE_EVERY_MS = 2_000
FRAGMENT = "X-Fragment"
_FRAGMENTS = {"live": "runs/_run_live.html", "sections": "runs/_run_sections.html"}
_NOT_ABORTABLE = (State.DRAFT, State.TEARING_DOWN, State.COLLECTING, State.SEALED)
_TONES = (
    ("clean", "all succeeded"),
    ("some", "up to 5 % did not"),
    ("many", "more than 5 % did not"),
    ("suspect", "SUSPECT"),
    ("invalid", "INVALID"),
    ("lost", "lost"),
    ("pending", "under way"),
)


_PARTS = ("first", "middle", "last")  # of the submissions, 25, 50 and 25 %


@require_GET
def run(request: HttpRequest, code: str) -> HttpResponse:
    """The page, or with X-Fragment the part of it that is asked for."""
    found = get_object_or_404(visible_to(request), code=code)
    fragment = request.headers.get(FRAGMENT, "")
    if fragment and fragment not in _FRAGMENTS:
        return HttpResponseBadRequest(f"no such fragment: {fragment[:40]}")
    ctx = live_context(found)
    ctx["live_every_ms"] = LIVE_EVERY_MS
    ctx["raw"] = request.GET.get("clock") == "raw"
    if fragment != "live":
        ctx |= _sections_context(found)
    answer = render(request, _FRAGMENTS.get(fragment, "runs/run.html"), ctx)
    patch_vary_headers(answer, [FRAGMENT])
    return answer


@require_GET
def run_markdown(request: HttpRequest, code: str) -> HttpResponse:
    """The result in a few lines, to be pasted into a report."""
    found = get_object_or_404(visible_to(request), code=code)
    ctx = live_context(found) | {
        "latency": _latency_rows(_asked(results.latency, found))
    }
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
    return _act(request, code, publication.publish, "Everybody can see this Run now.")


@login_required
@require_POST
def run_unpublish(request: HttpRequest, code: str) -> HttpResponse:
    said = "Only operators can see this Run now."
    return _act(request, code, publication.unpublish, said)


def live_context(found: Run) -> dict[str, Any]:
    """What changes while a Run is live, and what heads its page for good."""
    plan = lifecycle.plan_of(found)
    shown = run_json(found)
    ctx: dict[str, Any] = {
        "run": found,
        "plan": plan,
        "json": shown,
        "headline": headline.headline(shown),
        "beneath": headline.beneath(shown),
        "outcomes": _outcomes(shown["outcomes"]),
        "progress": shown.get("progress"),
        "phases": headline.phases(shown),
        "figures": headline.figures(shown),
        "abortable": found.state not in _NOT_ABORTABLE,
    }
    if found.state != State.SEALED:
        deadline = lifecycle.deadline_us(found, plan) if found.t0_us else None
        ctx["awaited"] = headline.awaited(
            shown,
            plan,
            state_at_us=found.state_at_us,
            deadline_us=deadline,
            collect_s=settings.RUN_COLLECT_TIMEOUT_S + 30,
        )
    return ctx


def _sections_context(found: Run) -> dict[str, Any]:
    """The evidence; a part that cannot be read now says so, and the rest stands."""
    plan = lifecycle.plan_of(found)
    latency = _asked(results.latency, found)
    shards = _asked(results.shards, found)
    labels = {row.get("ci95_label") for row in (latency or {}).values()} - {None}
    cells = [shard_cell(row) for row in shards or []]
    return {
        "unread": None in (latency, shards),
        "latency": _latency_rows(latency),
        "submission": _submission_rows(found),
        "steps": (found.summary or {}).get("steps"),
        "highest_step_held": (found.summary or {}).get("highest_step_held"),
        "interval_label": next(iter(labels), None),
        "causes": _asked(results.causes, found),
        "findings": results.findings(found),
        "certificate": (found.summary or {}).get("certificate"),
        "shards": cells,
        "tones": [tone for tone in _TONES if tone[0] in {c["tone"] for c in cells}],
        "outcomes_died": outcomes_of(found)["partial"],
        "how": _how(found, plan),
        "plan_json": json.dumps(found.plan, indent=2, ensure_ascii=False),
    }


def _submission_rows(found: Run) -> list[dict[str, Any]]:
    """Are early callers favoured? Of a sealed Run; a live one is not asked."""
    parts = (found.summary or {}).get("submission") or {}
    return [{"part": part, **parts[part]} for part in _PARTS if part in parts]


def _asked(question: Callable[[Run], Any], found: Run) -> Any:
    """None where ClickHouse does not answer."""
    try:
        return question(found)
    except QueryError:
        return None


def _latency_rows(found: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    return [
        {"phase": phase, "means": headline.LATENCIES[phase], **row}
        for phase, row in (found or {}).items()
        if row and row["count"]
    ]


def _outcomes(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    names = [*OUTCOMES, "pending"] if "pending" in counts else OUTCOMES
    return [
        {
            "name": name,
            "words": words(name),
            "letter": outcome_letter(name),
            "count": counts[name],
            "side": "ours" if name in ("unobserved", "not_attempted") else "theirs",
            "share": counts[name] / max(1, counts["total"]),
        }
        for name in names
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


def _how(found: Run, plan: Plan) -> Sequence[tuple[str, str]]:
    spec, load = plan.spec, words(plan.load.shape)
    probes = plan.sandbox_count / plan.probe_interval_s
    software = found.plan.get("software") or {}
    hosts = found.hosts.count()
    return (
        ("Load", f"{thousands(plan.sandbox_count)} sandboxes, {load}"),
        ("Hold", duration(plan.hold_s)),
        (
            "Probes",
            f"each sandbox every {duration(plan.probe_interval_s)}, at random phases: "
            f"{figure(probes)} a second over the fleet",
        ),
        ("Witness", "on" if plan.witness else "off: answers on demand"),
        ("Readiness", " ".join(plan.ready_command)),
        (
            "Timeouts",
            f"create {duration(plan.create_timeout_s)}, readiness "
            f"{duration(plan.ready_timeout_s)}, probe {duration(plan.probe_timeout_s)}",
        ),
        (
            "Spec asked for",
            f"{spec.cpu:g} CPU, {thousands(spec.memory_mb)} MB, image "
            f"{spec.image or 'the Provider’s default'}, region {spec.region or 'any'}"
            + (f", isolated by {spec.isolation}" if spec.isolation else ""),
        ),
        (
            "Fleet",
            f"{thousands(plan.shard_count)} Shards on {thousands(hosts)} "
            f"{plan.fleet.driver} host{'' if hosts == 1 else 's'}"
            f"{_fleet(found)}",
        ),
        (
            "Provider told",
            "announced" if plan.announced else "not announced",
        ),
        (
            "Memory",
            f"filled to {plan.fill_memory_pct} %" if plan.fill_memory_pct else "idle",
        ),
        ("Transport", plan.transport),
        ("Seed", str(plan.seed)),
        (
            "Software",
            f"{software.get('version') or 'unknown version'}, commit "
            f"{(software.get('commit') or 'unknown')[:12]}",
        ),
        *((("Note", plan.note),) if plan.note else ()),
    )


def _fleet(found: Run) -> str:
    """Kinds of machines, and what orchestration cost; of a sealed Run."""
    said = (found.summary or {}).get("fleet") or {}
    parts = [
        ", ".join(f"{n} × {kind}" for kind, n in (said.get("types") or {}).items())
    ]
    if said.get("launch_to_armed_s") is not None:
        parts.append(f"{duration(said['launch_to_armed_s'])} from launch to armed")
    shown = "; ".join(part for part in parts if part)
    return f": {shown}" if shown else ""


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
