"""The certificate finds what is wrong: sleeps, lives and classes that do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from runs.clickhouse import facts, ingest, sandboxes
from runs.clickhouse.certificate import Certificate, certificate
from runs.clickhouse.client import ObjectStore
from shardagent.wire import Plan

T0 = 1_000_000_000
SECOND = 1_000_000
GAP = 4 * SECOND
PLAN = Plan(
    code="alpha-certify",
    provider="sim",
    sandbox_count=1,
    sandboxes_per_shard=1,
    shard_count=1,
    target=1,
    witness=True,
)
# 20 % of the gap, three ticks, and as long as the closing probe took (1 ms).
PASSES = GAP // 5 + 750_000 + 1_000
Judge = Callable[..., Certificate]


def _events(ticks: list[int], *, final: bool = True) -> list[dict[str, Any]]:
    said = [
        {"at": T0 + k * SECOND, "kind": "clock", "offset_us": 0, "half_rtt_us": 0}
        for k in range(-1, 20)
    ]
    said += [
        {"at": T0, "kind": "create_sent", "sandbox": 0},
        {"at": T0 + 100, "kind": "created", "sandbox": 0, "latency_us": 100},
        {"at": T0 + 200, "kind": "ready", "sandbox": 0, "latency_us": 100},
        {"at": T0 + 300, "kind": "witness_started", "sandbox": 0, "latency_us": 90},
    ]
    for place, count in enumerate(ticks, start=1):
        sent = T0 + 300 + place * GAP
        last = final and place == len(ticks)
        said.append(
            {"at": sent + 1_000, "kind": "probe_ok", "sandbox": 0, "latency_us": 1_000,
             "sent_us": sent, "final": last, "ticks": count, "witness_ok": True}
        )  # fmt: skip
    return sorted(said, key=lambda event: event["at"])


@pytest.fixture
def judged(
    engine: None, object_store: ObjectStore, put: Callable[[str, bytes], None]
) -> Iterator[Judge]:
    def judge(events: list[dict[str, Any]], **truth: Any) -> Certificate:
        world = {
            "sandbox": 0, "create": "ok", "interactive": True, "asleep": [],
            "alive_from_us": T0 + 50, "alive_to_us": T0 + 60 * SECOND,
            "create_us": 90, "ready_us": 90, "end": "world_end", **truth,
        }  # fmt: skip
        journal = [{"kind": "released", "at_us": T0, "t0_us": T0}]
        lines = [{"v": 1, "n": n, **event} for n, event in enumerate(events)]
        objects = {
            f"runs/{PLAN.code}/shards/00000/00/events-000000.ndjson": lines,
            f"runs/{PLAN.code}/journal-000000.ndjson": journal,
            f"runs/{PLAN.code}/truth-000000.ndjson": [world],
        }
        for key, rows in objects.items():
            put(key, b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        ingest.replace_run(object_store, PLAN, list(objects))
        run = facts.run_facts(PLAN)
        sandboxes.classify(run, None, final=True)
        found = certificate(run)
        assert found is not None
        return found

    yield judge
    ingest.forget_run(PLAN.code)


def _sleep(length: int) -> list[list[int]]:
    """Ends as the second probe reaches it."""
    ends = T0 + 300 + 2 * GAP
    return [[ends - length, ends]]


def test_an_honest_record_is_clean(judged: Judge) -> None:
    found = judged(_events([16, 32, 48]))
    assert found.clean, found
    assert found.compared == 1


def test_a_sleep_that_the_witness_must_let_pass_counts_as_awake(judged: Judge) -> None:
    found = judged(_events([16, 27, 43]), asleep=_sleep(PASSES))
    assert found.clean, found
    assert found.sleepers == 0


def test_a_longer_sleep_must_not_be_proven(judged: Judge) -> None:
    """The ticks lie: a witness that claims to have run while it slept."""
    found = judged(_events([16, 32, 48]), asleep=_sleep(PASSES + 10_000))
    assert not found.clean
    assert found.sandboxes_over_truth == 1
    assert (found.sleepers, found.sleepers_missed) == (1, 1)
    assert found.worst_proven_excess == 1


def test_a_sleep_that_was_found_out_is_clean(judged: Judge) -> None:
    found = judged(_events([16, 20, 36]), asleep=_sleep(3 * SECOND))
    assert found.clean, found
    assert (found.sleepers, found.sleepers_missed) == (1, 0)


def test_a_death_before_the_last_good_probe_is_a_violation(judged: Judge) -> None:
    found = judged(_events([16, 32, 48]), alive_to_us=T0 + 2 * GAP)
    assert found.sandboxes_over_truth == 1
    assert found.proven_over_truth > 0


def test_a_life_before_its_create_was_sent_is_a_violation(judged: Judge) -> None:
    found = judged(_events([16, 32, 48]), alive_from_us=T0 - SECOND)
    assert found.sandboxes_over_possible == 1
    assert found.truth_over_possible > 0


def test_a_success_that_never_was_interactive_is_misclassified(judged: Judge) -> None:
    found = judged(_events([16, 32, 48]), interactive=False)
    assert found.misclassified == 1
    assert not found.clean
