"""The staircase's Held of each step, against a record made by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from runs.clickhouse import facts, ingest, sandboxes, steps
from runs.clickhouse.client import ObjectStore
from shardagent.wire import Load, Plan, Shape

T0 = 1_000_000_000
SECOND = 1_000_000
PLAN = Plan(
    code="alpha-steps",
    provider="sim",
    sandbox_count=8,
    sandboxes_per_shard=4,
    shard_count=2,
    target=8,
    load=Load(shape=Shape.STAIRCASE, steps=4, step_s=10),
)


def record() -> dict[str, bytes]:
    """Ranks interleave: step k is the k-th Sandbox of each Shard; one dies."""
    objects = {}
    for shard in range(2):
        events = [
            {"at": T0 + k * SECOND, "kind": "clock", "offset_us": 0, "half_rtt_us": 0}
            for k in range(61)
        ]
        for place in range(4):
            box = shard * 4 + place
            sent = T0 + place * 10 * SECOND
            dies = box == 1  # of the second step, in the third
            ends = T0 + (25 if dies else 60) * SECOND
            events += [
                {"at": sent, "kind": "create_sent", "sandbox": box},
                {"at": sent + 1, "kind": "created", "sandbox": box, "latency_us": 1},
                {"at": sent + 4 * SECOND, "kind": "ready", "sandbox": box,
                 "latency_us": 1},
                {"at": ends, "kind": "probe_ok", "sandbox": box, "latency_us": 0,
                 "sent_us": ends, "final": not dies},
            ]  # fmt: skip
        events.sort(key=lambda event: event["at"])
        lines = [json.dumps({"v": 1, "n": n, **e}) for n, e in enumerate(events)]
        key = f"runs/{PLAN.code}/shards/{shard:05d}/00/events-000000.ndjson"
        objects[key] = "\n".join(lines).encode() + b"\n"
    journal = [
        {"kind": "released", "at_us": T0, "t0_us": T0},
        {"kind": "holding", "at_us": T0, "t_hold_us": T0 + 40 * SECOND},
        {"kind": "teardown", "at_us": T0, "t_end_us": T0 + 50 * SECOND},
    ]
    text = "\n".join(json.dumps(line) for line in journal)
    objects[f"runs/{PLAN.code}/journal-000000.ndjson"] = text.encode() + b"\n"
    return objects


@pytest.fixture(scope="module")
def run(
    engine: None, object_store: ObjectStore, put: Callable[[str, bytes], None]
) -> Iterator[facts.RunFacts]:
    objects = record()
    for key, body in objects.items():
        put(key, body)
    ingest.replace_run(object_store, PLAN, list(objects))
    found = facts.run_facts(PLAN)
    sandboxes.classify(found, None, final=True)
    yield found
    ingest.forget_run(PLAN.code)


def test_each_step_has_the_least_of_its_second_half(run: facts.RunFacts) -> None:
    found = steps.steps(run, PLAN)
    assert [step.target for step in found] == [2, 4, 6, 8]
    # In step 3 one dies at 25 s, the window's very begin: [start, end) is over there.
    assert [step.held for step in found] == [2, 4, 5, 7]
    bound = 100  # µs: the nearest sample is at most a second away from any end
    for place, step in enumerate(found[:3]):
        assert step.from_us == T0 + (place * 10 + 5) * SECOND
        assert step.to_us is not None
        assert 0 <= T0 + (place + 1) * 10 * SECOND - step.to_us <= 2 * bound
    assert found[3].from_us == T0 + 40 * SECOND


def test_the_highest_step_held_ends_at_the_first_that_was_not(
    run: facts.RunFacts,
) -> None:
    found = steps.steps(run, PLAN)
    assert steps.highest_held(found) == 2
    assert steps.highest_held(found[2:]) is None
    mended = [replace(step, held=step.target) for step in found]
    assert steps.highest_held(mended) == 4
    # 99 % of a step's target will do.
    assert steps.Step(1, 200, 0, 1, 198).was_held
    assert not steps.Step(1, 200, 0, 1, 197).was_held


def test_other_shapes_have_no_steps(run: facts.RunFacts) -> None:
    assert steps.steps(run, PLAN.model_copy(update={"load": Load()})) == []
