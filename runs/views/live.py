"""An unsealed Run as its page is told of it: one small JSON a poll, the same for all.

Everything in it comes from the Run's row and its Attempts' last heartbeats; the record
is asked for nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.loader import render_to_string
from django.views.decorators.http import require_GET

from runs import lifecycle, told
from runs.liveness import SILENT_INTERVALS
from runs.models import Run
from runs.templatetags.runs_format import thousands, words
from runs.views.head import head
from runs.views.packed import answer, by_cost, kept
from runs.views.runs import operator_watches, published
from shardagent.wire import Plan

POLL_EVERY_MS = 1_000
KEPT_S = 1.0  # so that what is shown was heard 2 s ago at most, however many watch
KEPT_S_MAX = 1.9  # of a Run so large that making it each second would cost too much
CAUSES_SHOWN_MAX = 8
# One letter a Shard in the JSON, its class on the page, and what it means.
TONES: Mapping[str, tuple[str, str]] = {
    "w": ("waiting", "not heard yet"),
    "a": ("armed", "armed"),
    "p": ("pending", "under way"),
    "c": ("clean", "all answer"),
    "s": ("some", "up to 5 % failed or died"),
    "m": ("many", "more than 5 % failed or died"),
    "q": ("silent", "silent"),
    "l": ("lost", "lost"),
}
_CODE = re.compile(r"[a-z0-9-]{1,40}")  # of a Run; the name under which it is kept


@require_GET
def live(request: HttpRequest, code: str) -> HttpResponse:
    """What changes: the head of the page as HTML, the grid as letters. With an ETag."""
    if not _CODE.fullmatch(code):
        raise Http404(f"no Run is called {code}")
    if not operator_watches(request):
        get_object_or_404(published().only("pk"), code=code)

    def make() -> tuple[dict[str, Any], float]:
        began = time.thread_time()
        made = _told(get_object_or_404(Run, code=code))
        return made, by_cost(time.thread_time() - began, KEPT_S, KEPT_S_MAX)

    return answer(request, kept(f"live:{code}", make))


def _told(found: Run) -> dict[str, Any]:
    plan = lifecycle.plan_of(found)
    ctx = head(found)
    shards = live_shards(found, plan, ctx["beats"])
    return {
        "state": found.state,
        "abortable": ctx["abortable"],
        "head": render_to_string("runs/_run_live.html", ctx),
        "agents": render_to_string(
            "runs/_live_agents.html", agents_context(found, plan, shards, ctx["json"])
        ),
        "alive": alive_now(found, shards),
        "tones": "".join(shard["tone"] for shard in shards),
        "says": [shard["says"] for shard in shards],
    }


def live_shards(
    found: Run, plan: Plan, heard: Sequence[told.LastBeat]
) -> list[dict[str, Any]]:
    """One square a Shard, from the last heartbeat of its latest Attempt."""
    beats = {beat.shard: beat for beat in heard}
    count, per_shard = plan.sandbox_count, plan.sandboxes_per_shard
    limit_us = SILENT_INTERVALS * max(1.0, plan.heartbeat_interval_s) * 1e6
    # Who was not heard since then is silent, if the site has listened that long.
    since_us = lifecycle.now_us(found) - limit_us
    silent_before_us = since_us if found.listening_since_us < since_us else 0
    return [
        _square(
            index, beats.get(index), min(per_shard, count - first), silent_before_us
        )
        for index, first in enumerate(range(0, count, per_shard))
    ]


def alive_now(
    found: Run, shards: Sequence[Mapping[str, Any]]
) -> dict[str, float] | None:
    """Sandboxes that answered their agents last, and s since T0; None before it.

    Of Shards that are heard; at the middle of their last heartbeats. No proof, as the
    record is: it stands in for that until it is read.
    """
    heard = [shard["beat"] for shard in shards if shard["tone"] not in "wql"]
    if found.t0_us is None or not heard:
        return None
    running = [beat.heard_at_us for beat in heard if not beat.finished]
    at_us = sum(running) / len(running) if running else lifecycle.now_us(found)
    if at_us < found.t0_us:
        return None
    alive = sum(beat.alive for beat in heard)
    return {"at_s": round((at_us - found.t0_us) / 1e6, 2), "count": alive}


def _square(
    index: int, beat: told.LastBeat | None, size: int, silent_before_us: float
) -> dict[str, Any]:
    if beat is None or not beat.heard_at_us:
        lost = beat is not None and beat.lost_at_us
        tone = "l" if lost else "w"
        return {"index": index, "tone": tone, "says": TONES[tone][1], "beat": beat}
    bad = beat.failed + beat.dead
    if beat.lost_at_us:
        tone = "l"
    elif beat.heard_at_us < silent_before_us and not beat.finished:
        tone = "q"
    elif bad:
        tone = "s" if bad <= 0.05 * size else "m"
    elif beat.ready >= size or beat.finished:
        tone = "c"
    else:
        tone = "a" if beat.phase == "armed" and not beat.sent else "p"
    says = _said(tone, beat.finished or beat.phase, beat.alive, bad)
    return {"index": index, "tone": tone, "says": says, "beat": beat}


@lru_cache(maxsize=4_096)  # most Shards are alike
def _said(tone: str, doing: str, alive: int, bad: int) -> str:
    said = [words(doing), f"{thousands(alive)} alive"]
    if bad:
        said.append(f"{thousands(bad)} failed or died")
    if tone in "ql":
        said.insert(0, TONES[tone][1])
    return ", ".join(said)


def cells(shards: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The squares of the grid as the page draws them at first."""
    return [{**shard, "tone": TONES[shard["tone"]][0]} for shard in shards]


def agents_context(
    found: Run,
    plan: Plan,
    shards: Sequence[Mapping[str, Any]],
    shown: Mapping[str, Any],
) -> dict[str, Any]:
    """How the agents are, where the fleet stands, and what went wrong so far."""
    now = lifecycle.now_us(found)
    beats = [shard["beat"] for shard in shards if shard["beat"]]
    heard = [beat for beat in beats if beat.heard_at_us]
    running = [beat.heard_at_us for beat in heard if not beat.finished]
    causes = shown.get("causes") or []
    ended = sum(beat.failed + beat.dead for beat in beats)
    return {
        "run": found,
        "heard": len(heard),
        "shard_count": plan.shard_count,
        "silent": [s["index"] for s in shards if s["tone"] == "q"],
        "lost": [s["index"] for s in shards if s["tone"] == "l"],
        "oldest_s": max(0.0, (now - min(running)) / 1e6) if running else None,
        "dropped": sum(beat.events_dropped for beat in beats),
        "fleet": shown["fleet"],
        "health": told.health(
            shard["beat"]
            for shard in shards
            if shard["tone"] not in "wql" and not shard["beat"].finished
        ),
        "causes": causes[:CAUSES_SHOWN_MAX],
        "more": sum(row["count"] for row in causes[CAUSES_SHOWN_MAX:]),
        "untold": max(0, ended - sum(row["count"] for row in causes)),
    }
