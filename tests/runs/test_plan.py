from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runs.demo import demo_plan
from runs.errors import PlanError
from runs.plan import freeze, hosts_of, parse_plan, read_plan


def parse(asked: object) -> Any:
    return parse_plan(asked, sandbox_count_max=1_000_000)


@pytest.mark.parametrize(
    ("asked", "fields"),
    [
        ({}, {"provider", "sandbox_count"}),
        ([], {"plan"}),
        ({"provider": "sim", "sandbox_count": 0}, {"sandbox_count"}),
        ({"provider": "sim", "sandbox_count": 10**9}, {"sandbox_count"}),
        ({"provider": "sim", "sandbox_count": 1_500_000}, {"sandbox_count"}),
        ({"provider": "nope", "sandbox_count": 1}, {"provider"}),
        ({"provider": "sim", "sandbox_count": 1, "hold_s": -1}, {"hold_s"}),
        ({"provider": "sim", "sandbox_count": 1, "hodl_s": 1}, {"hodl_s"}),
        (
            {"provider": "sim", "sandbox_count": 1, "load": {"shape": "x", "y": 1}},
            {"load.shape", "load.y"},
        ),
        ({"provider": "sim", "sandbox_count": 1, "hold_s": float("nan")}, {"hold_s"}),
        ({"provider": "sim", "sandbox_count": 9, "target": 10}, {"target"}),
        (
            {"provider": "sim", "sandbox_count": 9, "ready_expect": "("},
            {"ready_expect"},
        ),
        (
            {"provider": "sim", "sandbox_count": 9, "thresholds": {"loop_lag_ms": 101}},
            {"thresholds.loop_lag_ms"},
        ),
        (
            {"provider": "sim", "sandbox_count": 9, "thresholds": {"luck": 1}},
            {"thresholds.luck"},
        ),
        (
            {"provider": "sim", "sandbox_count": 9, "ranked": True, "hold_s": 5},
            {"ranked"},
        ),
        (
            {"provider": "sim", "sandbox_count": 9, "load": {"shape": "staggered"}},
            {"load.stagger_us"},
        ),
    ],
)
def test_each_bad_field_gets_its_own_message(asked: object, fields: set[str]) -> None:
    with pytest.raises(PlanError) as caught:
        parse(asked)
    assert set(caught.value.messages) == fields
    assert all(caught.value.messages.values())


@given(count=st.integers(1, 1_000_000), per_shard=st.integers(50, 10_000))
def test_shards_partition_the_sandboxes(count: int, per_shard: int) -> None:
    plan = parse(
        {"provider": "sim", "sandbox_count": count, "sandboxes_per_shard": per_shard}
    )
    assert sum(len(plan.sandboxes_of(i)) for i in range(plan.shard_count)) == count
    assert plan.sandboxes_of(0).start == 0
    assert plan.sandboxes_of(plan.shard_count - 1).stop == count


def test_a_tighter_threshold_is_taken() -> None:
    plan = parse(
        {"provider": "sim", "sandbox_count": 9, "thresholds": {"loop_lag_ms": 50}}
    )
    assert plan.thresholds == {"loop_lag_ms": 50}


def test_every_bad_field_has_its_message_at_once() -> None:
    asked = {"provider": "sim", "sandbox_count": 9, "hold_s": "long"}
    asked["thresholds"] = {"loop_lag_ms": 101, "steal_pct": "x", "nothing": 1}
    with pytest.raises(PlanError) as caught:
        parse(asked)
    assert set(caught.value.messages) == {
        "hold_s", "thresholds.loop_lag_ms", "thresholds.steal_pct",
        "thresholds.nothing",
    }  # fmt: skip


def test_shard_count_that_contradicts_the_size_is_refused() -> None:
    with pytest.raises(PlanError, match="shard_count"):
        parse(
            {
                "provider": "sim",
                "sandbox_count": 1_000,
                "sandboxes_per_shard": 100,
                "shard_count": 3,
            }
        )


def test_a_record_that_names_only_its_shard_count_has_shards_of_that_size() -> None:
    told = {"provider": "acme", "sandbox_count": 90, "shard_count": 4}
    plan = read_plan(told, "acme-1234")
    assert (plan.shard_count, plan.sandboxes_per_shard) == (4, 23)
    assert [len(plan.sandboxes_of(shard)) for shard in range(4)] == [23, 23, 23, 21]


def test_a_frozen_plan_names_every_threshold() -> None:
    """A later change of a default changes no old Run (raw-format.md, run.json)."""
    asked = {"provider": "sim", "sandbox_count": 9, "thresholds": {"loop_lag_ms": 50}}
    plan = freeze(parse(asked), code="sim-1234", now_us=1, software={})
    assert plan.thresholds["loop_lag_ms"] == 50
    assert plan.thresholds["loop_lag_ms.invalid"] == 1_000
    assert plan.thresholds["raw_record.invalid"] == 0


def test_a_frozen_plan_reads_back_the_same() -> None:
    plan = freeze(
        parse({"provider": "local", "sandbox_count": 200}),
        code="local-1234",
        now_us=1,
        software={"version": "0"},
    )
    assert plan.seed > 0
    assert read_plan(plan.model_dump(mode="json"), "local-1234") == plan


@pytest.mark.parametrize("scale", [1_000, 10_000, 100_000, 300_000, 1_000_000])
def test_the_demo_has_a_plan_of_every_scale(
    monkeypatch: pytest.MonkeyPatch, scale: int
) -> None:
    monkeypatch.setenv("SCALE", str(scale))
    plan = parse_plan(demo_plan(), sandbox_count_max=1_000_000)
    assert plan.sandbox_count == scale
    assert plan.shard_count == scale // 100
    assert plan.shard_count <= hosts_of(plan) * plan.fleet.shards_per_host


def test_a_provider_that_has_only_an_sdk_is_never_called_thin() -> None:
    pytest.importorskip("modal")
    asked = {"provider": "modal", "sandbox_count": 1}
    assert parse_plan(asked, sandbox_count_max=1).transport == "sdk"
    with pytest.raises(PlanError, match="modal has only sdk"):
        parse_plan({**asked, "transport": "thin"}, sandbox_count_max=1)


@pytest.mark.parametrize(
    ("count", "per_host", "beat_s", "flush_s"),
    [
        (2_000, None, 1, 1),
        (2_001, None, 1, 2),
        (10_001, None, 2, 2),  # of Shards that share one machine
        (100_000, 10, 1, 2),
        (100_000, 11, 2, 2),
        (20_001, 1, 2, 2),
    ],
)
def test_runs_are_heard_and_recorded_each_second_where_that_costs_little(
    count: int, per_host: int | None, beat_s: float, flush_s: float
) -> None:
    asked: dict[str, Any] = {"provider": "sim", "sandbox_count": count}
    if per_host:
        asked["fleet"] = {"driver": "local", "shards_per_host": per_host}
    plan = parse_plan(asked, sandbox_count_max=count)
    assert (plan.heartbeat_interval_s, plan.flush_interval_s) == (beat_s, flush_s)
    told = {**asked, "heartbeat_interval_s": 2, "flush_interval_s": 30}
    plan = parse_plan(told, sandbox_count_max=count)
    assert (plan.heartbeat_interval_s, plan.flush_interval_s) == (2, 30)


def test_an_older_record_of_an_sdk_is_read_as_one() -> None:
    pytest.importorskip("modal")
    stored = {"provider": "modal", "sandbox_count": 1, "transport": "thin"}
    assert read_plan(stored, "modal-1").transport == "sdk"
