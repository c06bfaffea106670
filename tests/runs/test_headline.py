from __future__ import annotations

from typing import Any

import pytest

from runs import headline
from shardagent.wire import Plan

PLAN = Plan(provider="sim", sandbox_count=1_000, shard_count=10, hold_s=20)
S = 1_000_000


def told(state: str = "sealed", **changes: Any) -> dict[str, Any]:
    """A Run as the API tells it: 990 of 1,000 held for 20 s."""
    run = {
        "state": state,
        "provider": "sim",
        "plan": PLAN.model_dump(mode="json") | {"target": 1_000},
        "verdict": {"level": "VALID", "reasons": []},
        "held": {"proven": 990},
        "end_reason": "completed",
        "outcomes": {"success": 990, "not_attempted": 0, "total": 1_000},
        "instants": {
            "t0_us": 0,
            "t_hold_us": 10 * S,
            "t_end_us": 30 * S,
            "t_destroy_us": 40 * S,
        },
        "progress": {
            "armed": 8,
            "settled": 4,
            "finished": 3,
            "sent": 1_000,
            "ready": 620,
            "alive": 600,
            "destroyed": 70,
        },
        "now_us": 15 * S,
    }
    return run | changes


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (told(), "At least 990 of 1,000 sandboxes were alive together"),
        (told(held={"proven": 0}), "No sandbox was proven alive for the whole 20 s"),
        (told(verdict={"level": "INVALID"}), "No result: our own rig cannot be"),
        (told(held=None), "No hold was measured; 990 of 1,000 succeeded"),
        (
            told(held=None, end_reason="aborted"),
            "Aborted before the hold: 1,000 of 1,000 sandboxes had been asked for",
        ),
        (told("bursting"), "620 of 1,000 sandboxes answer so far"),
        (told("holding"), "600 of 1,000 sandboxes are being held"),
        (told("tearing_down", now_us=29 * S), "600 of 1,000 sandboxes are being held"),
        (told("tearing_down", now_us=31 * S), "Asking 600 sandboxes one last time"),
        (told("tearing_down", now_us=41 * S), "Destroying what was created of 1,000"),
    ],
)
def test_the_headline_is_a_sentence_with_its_number(
    run: dict[str, Any], said: str
) -> None:
    assert headline.headline(run).startswith(said)


def test_a_rehearsal_says_that_it_is_one_and_how_far_apart_shards_fired() -> None:
    plan = {**told()["plan"], "rehearsal": True}
    live = headline.headline(told("arming", plan=plan))
    assert live == "A rehearsal: the fleet arms and fires, and creates nothing"
    fired = {"rehearsed": {"shards": 9, "skew_max_ms": 12.3}}
    invalid = {"level": "INVALID", "reasons": []}
    run = told(plan=plan, held=None, fleet=fired, verdict=invalid)
    said = "A rehearsal: 9 of 10 Shards fired within 12.3 ms, and created nothing"
    assert headline.headline(run) == said
    none = told(plan=plan, held=None, fleet={"rehearsed": {"shards": 0}})
    assert "no Shard fired" in headline.headline(none)


def test_a_hold_that_was_cut_is_as_long_as_it_was() -> None:
    run = told()
    run["instants"]["t_end_us"] = 14_500_000
    assert "for the whole 4.50 s hold" in headline.headline(run)


@pytest.mark.parametrize(
    ("run", "state_at_us", "said"),
    [
        (
            told("provisioning", fleet={"hosts": 10, "granted": 7}),
            5 * S,
            "Waiting for 3 of 10 machines; goes on when all are granted, "
            "or with 10 in 4 m 50 s.",
        ),
        (
            told("provisioning", fleet={"hosts": 0, "granted": 0}),
            -300 * S,
            "Waiting for 10 of 10 machines; goes on when all are granted, "
            "or with 10 in a moment.",
        ),
        (
            told("arming"),
            5 * S,
            "Waiting for 2 of 10 Shards; releases when all are armed, "
            "or with 10 in 110 s.",
        ),
        (
            told("arming"),
            -70 * S,
            "Waiting for 2 of 10 Shards; releases when all are armed, "
            "or with 10 in 35 s.",
        ),
        (told("bursting", now_us=-2 * S), 0, "All 10 agents fire in 2 s."),
        (
            told("bursting"),
            0,
            "Waiting for 6 of 10 Shards to settle; the hold begins then, or in 85 s.",
        ),
        (told("holding"), 0, "Holding for 20 s: 15 s to go, then everything is asked"),
        (told("tearing_down", now_us=29 * S), 0, "The hold ends in 1 s."),
        (told("tearing_down", now_us=32 * S), 0, "Final probes: nothing is destroyed"),
        (
            told("tearing_down", now_us=41 * S),
            0,
            "Destroying: 70 gone; waiting for 7 of 10 agents, 89 s at most.",
        ),
        (told("collecting"), 0, "Collecting the record and judging it; agents that"),
    ],
)
def test_what_is_awaited_has_a_limit(
    run: dict[str, Any], state_at_us: int, said: str
) -> None:
    found = headline.awaited(
        run, PLAN, state_at_us=state_at_us, deadline_us=100 * S, collect_s=90
    )
    assert found.startswith(said)


def test_phases_are_over_now_or_to_come() -> None:
    found = {phase["name"]: phase["is"] for phase in headline.phases(told("holding"))}
    assert found["burst"] == "over"
    assert found["hold"] == "now"
    assert found["teardown"] == "to-come"
