from dataclasses import replace

import pytest

from runs.verdict import (
    CHECKS,
    Level,
    RunFigures,
    ShardFigures,
    judge,
    resolved,
    threshold_errors,
)

CLEAN_RUN = RunFigures(
    planned=10_000,
    target=10_000,
    shard_count=100,
    shards_lost=0,
    unobserved=0,
    record_defects=0,
    resends=0,
    leftovers=0,
    create_p50_ms=300,
    tti_p50_ms=500,
    harness_p99_ms=5,
    start_skew_p99_ms=10,
    start_skew_max_ms=30,
    time_to_100_ms=4_000,
    egress_demand_pct=1,
)
CLEAN_SHARD = ShardFigures(
    shard=0,
    loop_lag_ms=20,
    loop_cpu_pct=30,
    steal_pct=1,
    harness_delay_p99_ms=5,
    harness_delay_max_ms=20,
    final_probe_late_ms=20,
    cold_connections_pct=0,
    clock_bound_ms=2,
    clock_defects=0,
)


def shards(count: int = 100, **tripped: float) -> list[ShardFigures]:
    rows = [replace(CLEAN_SHARD, shard=index) for index in range(100)]
    return [
        replace(row, **tripped) if row.shard < count else row  # type: ignore[arg-type]
        for row in rows
    ]


def test_a_clean_run_is_valid() -> None:
    verdict = judge(CLEAN_RUN, shards(), {})
    assert verdict.level is Level.VALID
    assert verdict.reasons == []
    assert len(verdict.findings) == len(CHECKS)


@pytest.mark.parametrize("check", [c for c in CHECKS if c.of == "shard"], ids=str)
def test_each_check_of_a_shard_reaches_the_run_by_the_share_rule(check: object) -> None:
    name = check.name  # type: ignore[attr-defined]
    limit = check.suspect if check.suspect is not None else check.invalid  # type: ignore[attr-defined]
    one = judge(CLEAN_RUN, shards(1, **{name: limit + 0.001}), {})
    assert set(one.shards) == {0}
    many = judge(CLEAN_RUN, shards(21, **{name: limit + 0.001}), {})
    assert many.level is Level.INVALID
    assert "shards_suspect_pct" in {f.check.name for f in many.reasons}
    if check.suspect is not None:  # type: ignore[attr-defined]
        assert one.level is Level.VALID  # 1 % of Shards is within the rule


@pytest.mark.parametrize(
    ("change", "name", "level"),
    [
        ({"start_skew_p99_ms": 50.1}, "start_skew_p99_ms", Level.SUSPECT),
        ({"start_skew_p99_ms": 5_001}, "start_skew_p99_ms", Level.INVALID),
        ({"start_skew_max_ms": 401}, "start_skew_max_ms", Level.INVALID),
        ({"harness_p99_ms": 51}, "harness_share_pct", Level.INVALID),
        ({"shards_lost": 1}, "shards_lost_pct", Level.SUSPECT),
        ({"shards_lost": 3}, "shards_lost_pct", Level.INVALID),
        ({"unobserved": 1}, "unobserved_pct", Level.SUSPECT),
        ({"unobserved": 51}, "unobserved_pct", Level.INVALID),
        ({"record_defects": 1}, "raw_record", Level.INVALID),
        ({"resends": 1}, "resends", Level.INVALID),
        ({"leftovers": 1}, "leftovers_pct", Level.SUSPECT),
        ({"leftovers": 101}, "leftovers_pct", Level.INVALID),
        ({"egress_demand_pct": 51}, "egress_demand_pct", Level.SUSPECT),
        ({"egress_demand_pct": 101}, "egress_demand_pct", Level.INVALID),
    ],
)
def test_each_check_of_the_run_trips(
    change: dict[str, float], name: str, level: Level
) -> None:
    verdict = judge(replace(CLEAN_RUN, **change), shards(), {})  # type: ignore[arg-type]
    assert verdict.level is level
    assert [f.check.name for f in verdict.reasons] == [name]
    assert verdict.reasons[0].threshold is not None


def test_the_plan_may_tighten() -> None:
    tight = judge(CLEAN_RUN, shards(), {"start_skew_p99_ms": 9})
    assert tight.level is Level.SUSPECT
    assert tight.reasons[0].threshold == 9


def test_slow_creates_widen_the_harness_delay_that_is_tolerated() -> None:
    slow = replace(CLEAN_RUN, create_p50_ms=1_000, tti_p50_ms=2_000)
    assert judge(slow, shards(30, harness_delay_p99_ms=45), {}).level is Level.VALID
    assert judge(slow, shards(30, harness_delay_p99_ms=51), {}).level is Level.INVALID


def test_a_record_from_elsewhere_cannot_loosen_a_threshold() -> None:
    loose = {"loop_lag_ms": 1e9, "loop_lag_ms.invalid": 1e9, "raw_record.invalid": 5}
    harmed = replace(CLEAN_RUN, record_defects=1)
    verdict = judge(harmed, shards(30, loop_lag_ms=5_000), loose)
    assert verdict.level is Level.INVALID
    found = {f.check.name: (f.suspect, f.invalid) for f in verdict.reasons}
    assert found["loop_lag_ms"] == (100, 1_000)
    assert found["raw_record"] == (None, 0)


def test_every_threshold_is_resolved_and_judges_the_same() -> None:
    tight = {"start_skew_p99_ms": 9.0, "loop_lag_ms.invalid": 500.0}
    whole = resolved(tight)
    assert whole["start_skew_p99_ms"] == 9
    assert whole["loop_lag_ms.invalid"] == 500
    levels = [c for c in CHECKS for x in (c.suspect, c.invalid) if x is not None]
    assert len(whole) == len(levels)
    assert threshold_errors(whole) == {}
    slow = replace(CLEAN_RUN, create_p50_ms=1_000, tti_p50_ms=2_000)
    rows = shards(30, harness_delay_p99_ms=45)
    assert judge(slow, rows, whole) == judge(slow, rows, tight)
