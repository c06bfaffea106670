"""What heads a Run's page: the answer, what is awaited, the six Outcomes, figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings

from runs import headline, lifecycle, told
from runs.api.shapes import OUTCOMES, run_json
from runs.models import Run, State
from runs.templatetags.runs_format import outcome_letter, thousands, words
from runs.views.timeline import timeline

LEAST_SHARE = 0.005  # of the bar, for an Outcome that occurred
_NOT_ABORTABLE = (State.DRAFT, State.TEARING_DOWN, State.COLLECTING, State.SEALED)


def head(found: Run) -> dict[str, Any]:
    """What changes while a Run is live, and what heads its page for good."""
    plan = lifecycle.plan_of(found)
    heard = [] if found.state == State.SEALED else told.last_beats(found)
    shown = run_json(found, heard)
    ctx: dict[str, Any] = {
        "run": found,
        "beats": heard,
        "plan": plan,
        "json": shown,
        "headline": headline.headline(shown),
        "qualified": headline.qualified(shown),
        "held_rows": headline.held_rows(shown),
        "held": thousands(shown["held"]["proven"]) if shown["held"] else "",
        "beneath": headline.beneath(shown),
        "outcomes": _outcomes(shown["outcomes"]),
        "progress": shown.get("progress"),
        "figures": headline.figures(shown),
        "abortable": found.state not in _NOT_ABORTABLE and not found.end_reason,
    }
    if found.state != State.SEALED:
        deadline = lifecycle.deadline_us(found, plan) if found.t0_us else None
        ctx["phases"] = timeline(found, plan, shown)
        ctx["awaited"] = headline.awaited(
            shown,
            plan,
            state_at_us=found.state_at_us,
            deadline_us=deadline,
            collect_s=settings.RUN_COLLECT_TIMEOUT_S + 30,
        )
    return ctx


def _outcomes(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """In the order of their bar, in which even one Sandbox can be seen and hit."""
    names = [*OUTCOMES, "pending"] if "pending" in counts else OUTCOMES
    shares = {name: counts[name] / max(1, counts["total"]) for name in names}
    wide = {n: max(LEAST_SHARE, share) if share else 0.0 for n, share in shares.items()}
    whole = sum(wide.values()) or 1.0
    found, left = [], 0.0
    for name in names:
        width = 100 * wide[name] / whole
        found.append(
            {
                "name": name,
                "words": words(name),
                "letter": outcome_letter(name),
                "count": counts[name],
                "share": shares[name],
                "left": f"{left:.3f}%",
                "width": f"{width:.3f}%",
                "middle": f"{left + width / 2:.3f}%",
            }
        )
        left += width
    return found
