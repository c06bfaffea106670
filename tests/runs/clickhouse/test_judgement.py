"""ClickHouse's judgement against a slow reference, over random records."""

from __future__ import annotations

import os
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runs.clickhouse import client, curves, ingest, sandboxes
from runs.clickhouse.client import ObjectStore
from runs.clickhouse.facts import RunFacts
from shardagent.wire import Plan as WirePlan
from tests.runs.clickhouse import records, reference

EXAMPLES = int(os.environ.get("JUDGEMENT_EXAMPLES", "6"))


@pytest.mark.usefixtures("engine")
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**32))
def test_sql_agrees_with_the_reference(
    seed: int, object_store: ObjectStore, put: Callable[[str, bytes], None]
) -> None:
    rng = Random(seed)
    code = f"random-{seed}"
    plan = records.random_plan(rng)
    segments = records.random_segments(rng, plan, code)
    stored = records.packed(rng, segments)
    for key, blob in stored.items():
        put(key, blob)
    wire = WirePlan(
        code=code,
        provider="sim",
        sandbox_count=plan.sandbox_count,
        sandboxes_per_shard=plan.per_shard,
        shard_count=plan.shard_count,
    )
    keys = list(stored)
    rng.shuffle(keys)
    facts = RunFacts(
        code=code,
        sandbox_count=plan.sandbox_count,
        sandboxes_per_shard=plan.per_shard,
        shard_count=plan.shard_count,
        target=plan.target,
        witness=plan.witness,
        clock_id=plan.clock_id,
        t0_us=plan.t0,
        t_hold_us=plan.t_hold,
        t_end_us=plan.t_end,
    )
    try:
        if rng.random() < 0.5:
            cut = rng.randint(0, len(keys))
            ingest.ingest_segments(object_store, wire, keys[:cut])
            sandboxes.classify(facts, None, final=False)
            ingest.ingest_segments(object_store, wire, keys[cut // 2 :])
            sandboxes.classify(facts, list(range(plan.shard_count + 1)), final=True)
        else:
            ingest.replace_run(object_store, wire, keys)
            size = rng.choice([1, 3, 5_000])  # one statement, or several
            sandboxes.classify(facts, None, final=True, at_once=size)
        _compare(facts, reference.judge(plan, segments))
    finally:
        ingest.forget_run(code)


def _compare(facts: RunFacts, expected: reference.Judgement) -> None:
    rows = client.query_rows(
        "SELECT * FROM sandboxes FINAL WHERE run = {run:String} ORDER BY sandbox",
        {"run": facts.code},
        name="test",
    )
    assert len(rows) == facts.sandbox_count
    for row in rows:
        life = expected.lives[row["sandbox"]]
        who = f"sandbox {row['sandbox']}"
        assert row["outcome"] == life.outcome, who
        assert (row["cause"], row["origin"]) == (life.cause, life.origin), who
        assert row["judged"] == life.judged, who
        assert row["attempt"] == life.attempt, who
        assert bool(row["suspended"]) == life.suspended, who
        assert bool(row["duplicate_create"]) == life.duplicate, who
        assert row["settled_again"] == life.settled_again, who
        assert [tuple(i.values()) for i in row["proven"]] == life.proven, who
        assert row["implied_us"] == life.implied, who
    attempts = client.query_rows(
        "SELECT * FROM attempts FINAL WHERE run = {run:String}",
        {"run": facts.code},
        name="test",
    )
    found = {(row["shard"], row["attempt"]): row for row in attempts}
    assert {who: row["gaps"] for who, row in found.items()} == expected.gaps
    assert {who: row["conflicts"] for who, row in found.items()} == expected.conflicts
    assert {who: bool(row["disagree"]) for who, row in found.items()} == {
        who: expected.disagree[who] for who in found
    }
    defects = client.query_rows(
        "SELECT count() AS n FROM defects FINAL WHERE run = {run:String} AND line > 0",
        {"run": facts.code},
        name="test",
    )
    assert defects[0]["n"] == len(expected.defects)
    _compare_curve(facts, expected)


def _compare_curve(facts: RunFacts, expected: reference.Judgement) -> None:
    held = curves.held(facts)
    assert (held and (held.proven, held.from_us, held.to_us)) == expected.held()
    peak = curves.peak(facts)
    assert (peak.proven, peak.at_us) == expected.peak()
    assert peak.clock_bound_us == expected.clock_bound()
    if peak.at_us is not None:
        assert peak.possible == expected.possible(peak.at_us)
    found = curves.time_to(facts)
    for share in curves.SHARES:
        assert found[str(share)] == expected.time_to(share), share
    curve = curves.curve(facts, 433)
    assert (curve is None) == (facts.t0_us is None)
    if curve is not None:
        assert [p.elapsed_ms for p in curve.points] == [
            k * curve.step_ms for k in range(len(curve.points))
        ]
        for point in curve.points[:200]:
            t = curve.t0_us + point.elapsed_ms * 1_000
            assert point.proven == expected.proven(t), point
            assert point.possible == expected.possible(t), point
            assert point.implied == expected.implied(t), point
