"""What pages and API read of a judged Run, against sums made by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from runs import judge
from runs.clickhouse import (
    causes,
    certificate,
    curves,
    defects,
    distribution,
    facts,
    ingest,
    latency,
    logs,
    machines,
    sandbox_rows,
    sandboxes,
    shards,
    start,
    summary,
)
from runs.clickhouse.client import ObjectStore
from runs.clickhouse.facts import RunFacts
from runs.filters import SandboxFilter
from tests.runs.clickhouse.story import COUNT, PLAN, T0, Story, told


@pytest.fixture(scope="module")
def story() -> Story:
    return told()


@pytest.fixture(scope="module")
def run(
    engine: None,
    object_store: ObjectStore,
    put: Callable[[str, bytes], None],
    story: Story,
) -> Iterator[RunFacts]:
    objects = story.objects()
    for key, body in objects.items():
        put(key, body)
    ingest.replace_run(object_store, PLAN, list(objects))
    found = facts.run_facts(PLAN)
    sandboxes.classify(found, None, final=True)
    yield found
    ingest.forget_run(PLAN.code)


def test_the_summary_closes_and_repeats_to_the_byte(run: RunFacts) -> None:
    first = summary.summarise(run)
    assert first["outcomes"] == {
        "success": 31, "partial": 4, "readiness_failed": 0, "failed": 4,
        "unobserved": 0, "not_attempted": 1, "total": COUNT,
    }  # fmt: skip
    assert first["held"]["proven"] == 31
    assert first["peak"]["proven"] == 35
    assert first["implied_peak"] == 35
    assert first["time_to_ms"]["100"] is None
    assert first["defects"] == 0
    sandboxes.classify(run, None, final=True)
    assert json.dumps(summary.summarise(run)) == json.dumps(first)


def _exact(values: list[int], q: float, never: int = 0) -> int | None:
    ordered = sorted(values)
    place = min(len(values) + never - 1, math.floor(q * (len(values) + never)))
    return ordered[place] if place < len(ordered) else None


def test_percentiles_are_order_statistics(run: RunFacts, story: Story) -> None:
    found = latency.latency(run.code)["tti"]
    values = list(story.tti.values())
    assert found.count == 35
    for q, value in ((0.5, found.p50_us), (0.95, found.p95_us), (0.99, found.p99_us)):
        assert value == _exact(values, q)
    assert found.max_us == max(values)
    everyone = found.all_observed
    assert everyone.count == 39
    assert everyone.p50_us == _exact(values, 0.5, never=4)
    assert everyone.p99_us is None, "not reached"
    shared = {shard: len(found) for shard, found in latency.by_shard(run.code, "tti")}
    assert shared == {0: 9, 1: 9, 2: 9, 3: 8}


def test_shards_of_one_process_are_one_host(run: RunFacts) -> None:
    hosts = machines.host_of(run.code)
    assert set(hosts) == {0, 1, 2}
    assert hosts[0] == hosts[1] != hosts[2]
    held = summary.summarise(run)["held"]
    assert held["by_host"] == [(7, 9, 1), (8, 10, 1), (16, 20, 1)]
    label = judge.latencies(run, PLAN)["tti"]["ci95_label"]
    assert label == "no interval: 3 hosts are fewer than 20"


def test_probes_and_destroys_count_every_one(run: RunFacts) -> None:
    found = latency.latency(run.code)
    assert found["probe"].count == 31 * 9 + 4 * 4
    assert found["probe"].all_observed.count == 31 * 9 + 4 * 4 + 4
    assert found["destroy"].count == 31
    assert found["destroy"].p50_us == 2_900


def test_submission_quartiles_hold_everyone_once(run: RunFacts) -> None:
    parts = latency.by_submission(run.code)
    assert list(parts) == ["first", "middle", "last"]
    assert sum(part.count for part in parts.values()) == 35


def test_causes_are_counted(run: RunFacts) -> None:
    assert {(c.outcome, c.cause, c.count) for c in causes.causes(run.code)} == {
        ("failed", "capacity", 4),
        ("partial", "not_found", 4),
        ("not_attempted", "", 1),
    }


def test_deaths_are_known_to_lie_between_two_probes(run: RunFacts) -> None:
    points = curves.deaths(run, 1_000)
    assert points[-1].certain == points[-1].possible == 4
    assert all(point.certain <= point.possible for point in points)


def test_a_shard_has_one_row(run: RunFacts) -> None:
    rows = shards.shards(run)
    assert [row.shard for row in rows] == [0, 1, 2, 3]
    assert rows[2].loop_lag_us == 2_000
    assert rows[2].finished == "done"
    assert rows[3].outcomes == {
        "success": 7, "partial": 1, "failed": 1, "not_attempted": 1,
    }  # fmt: skip
    assert rows[0].cold_creates == 2
    assert rows[1:2] == shards.shards(run, 1)
    assert shards.health(run.code, 3)[0]["cpu_pct"] == 5.5


@pytest.mark.parametrize("sort", ["", "-sandbox", "tti", "-tti", "-create", "sent"])
def test_pages_of_rows_meet_in_any_order(run: RunFacts, sort: str) -> None:
    seen: list[dict[str, Any]] = []
    after: str | None = ""
    while after is not None:
        rows, after = sandbox_rows.sandbox_rows(
            run, SandboxFilter(sort=sort), after=after, limit=7
        )
        seen += rows
    assert len({row["sandbox"] for row in seen}) == len(seen) == COUNT
    if sort.endswith("tti"):  # those that never were come last, either way
        times = [row["tti_latency_us"] for row in seen]
        known = [at for at in times if at is not None]
        assert known == sorted(known, reverse=sort == "-tti")
        assert times[: len(known)] == known


@pytest.mark.parametrize(
    ("chosen", "count"),
    [
        (SandboxFilter(cause="capacity"), 4),
        (SandboxFilter(shard=3), 10),
        (SandboxFilter(shard=0), 10),
        (SandboxFilter(origin="provider"), 8),
        (SandboxFilter(q="FULL"), 4),
        (SandboxFilter(q="p12"), 1),
        (SandboxFilter(of="tti"), 35),
        (SandboxFilter(of="delay", most_ms=0.0), 0),
        (SandboxFilter(died_ms=(0.0, 4_999.0)), 0),
        (SandboxFilter(died_ms=(4_999.0, 6_000.0)), 4),
        (SandboxFilter(rank=(0, 9)), 10),
        (SandboxFilter(rank=(30, 99)), 9),
        (SandboxFilter(suspended=True), 0),
    ],
)
def test_conditions_choose(run: RunFacts, chosen: SandboxFilter, count: int) -> None:
    assert sandbox_rows.sandbox_count(run, chosen) == count


@pytest.mark.parametrize("at_ms", [0.0, 400.0, 2_000.0, 5_000.0, 9_000.0, 12_000.0])
def test_a_point_of_the_curve_leads_to_its_sandboxes(
    run: RunFacts, at_ms: float
) -> None:
    found = curves.curve(run, 200)
    assert found is not None
    point = next(p for p in found.points if p.elapsed_ms == at_ms)
    for name in ("proven", "possible", "implied"):
        chosen = SandboxFilter(alive=name, at_ms=at_ms)
        assert sandbox_rows.sandbox_count(run, chosen) == getattr(point, name), name


def test_a_curve_until_now_is_the_beginning_of_the_whole(run: RunFacts) -> None:
    whole = curves.curve(run, 200)
    assert whole is not None
    so_far = curves.curve(run, 200, until_us=T0 + 4_000_000)
    assert so_far is not None
    assert so_far.points == whole.points[: len(so_far.points)]
    assert so_far.points[-1].elapsed_ms == 4_200  # the first beyond it
    early = curves.curve(run, 200, until_us=T0 - 1_000_000)
    assert early is not None
    assert [point.elapsed_ms for point in early.points] == [0, 200]


def test_facets_leave_their_own_condition_out(run: RunFacts) -> None:
    chosen = SandboxFilter(outcome="failed", shard=1)
    assert dict(sandbox_rows.facet(run, chosen, "outcome")) == {
        "success": 8, "partial": 1, "failed": 1,
    }  # fmt: skip
    assert dict(sandbox_rows.facet(run, chosen, "shard")) == {0: 1, 1: 1, 2: 1, 3: 1}
    assert sandbox_rows.facet(run, chosen, "cause") == [("capacity", 1)]


def test_files_hold_the_same_rows(run: RunFacts) -> None:
    chosen = SandboxFilter(cause="not_found", sort="-tti")
    text = b"".join(sandbox_rows.export_rows(run, chosen, "csv")).decode()
    parquet = b"".join(sandbox_rows.export_rows(run, chosen, "parquet"))
    assert parquet[:4] == parquet[-4:] == b"PAR1"
    rows = json.loads(b"".join(sandbox_rows.export_rows(run, chosen, "json")))["data"]
    page, _ = sandbox_rows.sandbox_rows(run, chosen)
    order = [row["sandbox"] for row in page]
    assert [row["sandbox"] for row in rows] == order
    assert [int(line.split(",")[0]) for line in text.strip().splitlines()[1:]] == order


def test_distributions_count_every_success(run: RunFacts, story: Story) -> None:
    by_size = distribution.by_size(run.code, "tti")
    assert sum(bin.count for bin in by_size) == len(story.tti) == 35
    inside = [
        sum(bin.from_us <= took < bin.to_us for took in story.tti.values())
        for bin in by_size
    ]
    assert inside == [bin.count for bin in by_size]
    by_submission = distribution.by_submission(run.code, "tti")
    assert [bin.first for bin in by_submission] == list(range(39))
    assert sum(bin.never for bin in by_submission) == 4
    assert max(bin.max_us or 0 for bin in by_submission) == max(story.tti.values())


def test_every_shard_says_how_it_started(run: RunFacts) -> None:
    rows = start.start(run, PLAN)
    assert [row.creates for row in rows] == [10, 10, 10, 9]
    for row in rows:  # the agents' clocks are right: skew is delay
        assert row.skew_max_us == row.delay_max_us
        assert 0 <= (row.skew_min_us or 0) <= (row.skew_max_us or 0) <= 900


def test_one_sandbox_in_full(run: RunFacts) -> None:
    kinds = [event["kind"] for event in sandbox_rows.sandbox_events(run.code, 0, 7)]
    assert kinds[0] == "create_sent"
    assert kinds[-2:] == ["probe_failed", "dead"]


def test_a_log_has_an_index_of_places(run: RunFacts) -> None:
    instants = [T0, T0 + 2_000_000, T0 + 90_000_000]
    view = logs.LogView(1, 0)
    found = logs.log_index(run.code, view, q="LINE 1", number=7, instants=instants)
    assert found.total == 14
    assert found.levels == {"ERROR": 3, "INFO": 11}
    assert found.errors == [0, 5, 10]
    assert found.matches == [3, 12, 13]  # lines 1, 10 and 11
    assert found.error_count == found.match_count == 3
    assert found.place == 7
    assert found.begins == [2, 4, 14]
    rows = logs.log_window(run.code, view, 12, 200)
    assert [(row["number"], row["text"]) for row in rows] == [
        (12, "line 10"),
        (13, "line 11"),
    ]


def test_a_level_makes_a_view_with_places_of_its_own(run: RunFacts) -> None:
    view = logs.LogView(1, 0, ("ERROR", "CRITICAL"))
    found = logs.log_index(run.code, view, number=6, instants=[])
    assert (found.total, found.errors, found.place) == (3, [0, 1, 2], 2)
    numbers = [row["number"] for row in logs.log_window(run.code, view, 1, 9)]
    assert numbers == [5, 10]


def test_all_logs_are_searched_at_once(run: RunFacts) -> None:
    rows, by_shard = logs.search(run.code, "LINE 11")
    assert [(row["shard"], row["number"]) for row in rows] == [
        (shard, 13) for shard in range(4)
    ]
    assert by_shard == [(shard, 1) for shard in range(4)]
    rows, by_shard = logs.search(run.code, "line", level="ERROR", offset=11, limit=5)
    assert [(row["shard"], row["number"]) for row in rows] == [(3, 10)]
    assert by_shard == [(shard, 3) for shard in range(4)]


def test_a_shard_tells_its_story(run: RunFacts) -> None:
    kinds = [row["kind"] for row in shards.shard_events(run.code, 2)]
    assert kinds == ["agent_started", "agent_finished"]
    failures = shards.shard_failures(run.code, 2)
    assert [(row["kind"], row["cause"], row["count"]) for row in failures] == [
        ("create_failed", "capacity", 1),
        ("dead", "not_found", 1),
    ]
    assert [row["sandbox"] for row in failures] == [23, 27]


def test_the_median_shard_is_of_each_time(run: RunFacts) -> None:
    bins = shards.fleet_median(run.code, T0, 250_000, 10)
    assert [row["bin"] for row in bins] == [2]  # each Shard told once, 0.5 s after T0
    assert bins[0]["shards"] == 4
    assert bins[0]["cpu_pct"] == 5.5
    assert bins[0]["loop_lag_us"] == 2_000  # of 0, 1, 2 and 3 ms
    assert bins[0]["alive"] is None
    assert shards.fleet_median(run.code, T0, 250_000, 2) == []


def test_the_truth_lies_between_proven_and_possible(run: RunFacts) -> None:
    found = certificate.certificate(run)
    assert found is not None
    assert found.clean, found
    assert found.compared == 39
    assert found.create_error.count == 35
    assert found.create_error.max_us == 50
    assert found.ready_error.max_us == 0


def test_a_clean_record_has_no_defects(run: RunFacts) -> None:
    assert defects.defects(run) == []


def test_a_live_run_has_pending_sandboxes(run: RunFacts) -> None:
    sandboxes.classify(run, [3], final=False)
    try:
        outcomes = summary.summarise(run)["outcomes"]
        assert outcomes["pending"] == 1
        assert outcomes["total"] == COUNT
    finally:
        sandboxes.classify(run, None, final=True)


def test_a_live_curve_is_known_until_all_but_a_few_have_answered(
    engine: None, object_store: ObjectStore, put: Callable[[str, bytes], None]
) -> None:
    """200 Sandboxes last answered at 4 s, one of them at 2 s: it alone is waited for
    no longer; who died is not waited for at all."""
    plan = PLAN.model_copy(
        update={
            "code": "alpha-live",
            "sandbox_count": 201,
            "sandboxes_per_shard": 201,
            "shard_count": 1,
        }
    )
    said: list[dict[str, Any]] = []
    for second in (-1, 0, 6):
        clock = {"offset_us": 0, "half_rtt_us": 0, "clock_id": "c"}
        said.append({"at": T0 + second * 1_000_000, "kind": "clock", **clock})
    for box in range(201):
        own = {"sandbox": box}
        said.append({"at": T0, "kind": "create_sent", **own, "intended_us": T0})
        said.append({"at": T0 + 1, "kind": "created", **own, "latency_us": 1})
        timed = {"latency_us": 1, "tti_us": 2}
        said.append({"at": T0 + 2, "kind": "ready", **own, **timed})
        last = T0 + (2_000_000 if box == 7 else 4_000_000)
        probe = {"latency_us": 900, "sent_us": last, "final": False}
        fault = {"cause": "not_found", "origin": "provider"}
        if box != 200:
            said.append({"at": last + 900, "kind": "probe_ok", **own, **probe})
            continue
        said.append({"at": T0 + 900, "kind": "probe_failed", **own, **probe, **fault})
        said.append({"at": T0 + 901, "kind": "dead", **own, **fault})
    said.sort(key=lambda event: event["at"])
    lines = [json.dumps({"v": 1, "n": n, **event}) for n, event in enumerate(said)]
    key = f"runs/{plan.code}/shards/00000/00/events-000000.ndjson"
    put(key, "\n".join(lines).encode() + b"\n")
    ingest.ingest_segments(object_store, plan, [key])
    live = facts.live_facts(
        plan, t0_us=T0, t_hold_us=None, t_end_us=None, t_destroy_us=None, clock_id="c"
    )
    assert curves.answered_until(live) is None
    sandboxes.classify(live, None, final=False)
    until = curves.answered_until(live)
    ingest.forget_run(plan.code)
    assert until is not None
    assert T0 + 3_900_000 < until <= T0 + 4_000_000
