"""From the raw record in ClickHouse to a Run's summary: a pure function of the record.

Sealing, rebuilding and verifying all come here, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from runs import statistics, verdict
from runs.clickhouse import (
    causes,
    latency,
    machines,
    observed,
    rig,
    sandboxes,
    shards,
    summary,
)
from runs.clickhouse.certificate import certificate
from runs.clickhouse.facts import RunFacts, run_facts
from runs.clickhouse.steps import highest_held, steps
from runs.plan import is_simulated
from shardagent.wire import Plan, Shape

QUANTILES = {"p50_us": 0.5, "p95_us": 0.95, "p99_us": 0.99}
INTERVAL_PHASES = ("create", "ready", "tti")
SHARDS_LISTED_MAX = 200  # of those that tripped one check


def judge(plan: Plan) -> dict[str, Any]:
    """Class every Sandbox anew and sum the Run up; the same record, the same bytes."""
    facts = run_facts(plan)
    sandboxes.classify(facts, None, final=True)
    found = summary.summarise(facts)
    if plan.load.shape is Shape.SEQUENTIAL or plan.rehearsal:
        found["held"] = None  # one at a time, or nothing: none is claimed
    if plan.load.shape is Shape.STAIRCASE:
        climbed = steps(facts, plan)
        found["steps"] = [asdict(step) for step in climbed]
        found["highest_step_held"] = highest_held(climbed)
    found["latency"] = latencies(facts, plan)
    found["submission"] = {
        part: asdict(row) for part, row in latency.by_submission(plan.code).items()
    }
    found["causes"] = [asdict(row) for row in causes.causes(plan.code)]
    found["verdict"] = judge_rig(facts, plan, found)
    carried = machines.fleet(plan.code)
    found["fleet"] = asdict(carried)
    if plan.rehearsal:
        found["fleet"]["rehearsed"] = asdict(machines.rehearsed(plan.code))
    found["labels"] = labels(plan, mixed=len(carried.types) > 1)
    found["certificate"] = certified(facts)
    found["observed"] = asdict(observed.observed(facts))
    found["instants"] = {
        "t0_us": facts.t0_us,
        "t_hold_us": facts.t_hold_us,
        "t_end_us": facts.t_end_us,
        "t_destroy_us": facts.t_destroy_us,
    }
    return found


def certified(facts: RunFacts) -> dict[str, Any] | None:
    """A simulated Run against its world's truth; None where there is none."""
    found = certificate(facts)
    if found is None:
        return None
    return {
        "clean": found.clean,
        "violations": found.violations,
        **asdict(found),
        "latency_error_p50_us": found.create_error.p50_us,
        "latency_error_p99_us": found.create_error.p99_us,
    }


def labels(plan: Plan, *, mixed: bool = False) -> list[str]:
    """Words that stand beside the Run's number wherever it is shown."""
    found = []
    if plan.rehearsal:
        found.append("rehearsal")
    if mixed:
        found.append("mixed machine types")
    if is_simulated(plan):
        found.append("simulated")
        if plan.provider != "sim":
            found.append("stand-in")  # the vendor's API, but not the vendor
    if not plan.witness:
        found.append("answers on demand")
    if plan.quota_granted is not None and plan.sandbox_count > plan.quota_granted:
        found.append("quota-bound")
    if plan.load.shape is Shape.SEQUENTIAL:
        found.append("sequential: no Held")
    return found


def latencies(facts: RunFacts, plan: Plan) -> dict[str, Any]:
    """The latency table, with intervals by a bootstrap over hosts."""
    carriers = machines.host_of(plan.code)
    found = {
        phase: {**asdict(row), "ci95": {}, "ci95_label": None}
        for phase, row in latency.latency(plan.code).items()
    }
    for phase in INTERVAL_PHASES:
        if not found[phase]["count"]:
            continue
        by_shard = list(latency.by_shard(plan.code, phase))
        clusters = statistics.numbered(
            [carriers.get(shard, f"shard {shard}") for shard, _ in by_shard]
        )
        hosts = len(set(clusters))
        found[phase]["ci95_label"] = statistics.coverage_label(hosts)
        if hosts >= statistics.HOSTS_FOR_INTERVAL_MIN:
            rows = [took for _, took in by_shard]
            found[phase]["ci95"] = _intervals(rows, clusters, plan.seed)
    return found


def _intervals(
    rows: Sequence[Sequence[int]], clusters: Sequence[int], seed: int
) -> dict[str, Any]:
    sizes = [len(took) for took in rows]
    bounds = statistics.intervals(
        np.concatenate([np.asarray(took, dtype=np.int64) for took in rows]),
        np.repeat(np.asarray(clusters), sizes),
        list(QUANTILES.values()),
        seed=seed,
    )
    return {n: list(bound) for n, bound in zip(QUANTILES, bounds, strict=True)}


def judge_rig(facts: RunFacts, plan: Plan, found: dict[str, Any]) -> dict[str, Any]:
    """The verdict on the harness, every check with value and thresholds."""
    rows = shards.shards(facts)
    carried = machines.fleet(plan.code)
    figures = rig.rig(facts, plan, rows)
    outcomes = found["outcomes"]
    run = verdict.RunFigures(
        planned=plan.sandbox_count,
        target=facts.target,
        shard_count=facts.shard_count,
        shards_lost=facts.shard_count - figures.shards_started,
        unobserved=outcomes["unobserved"],
        record_defects=figures.record_defects,
        resends=figures.resends,
        egress_demand_pct=figures.egress_demand_pct,
        leftovers=figures.leftovers,
        create_p50_ms=figures.run["create_p50_ms"],
        tti_p50_ms=figures.run["tti_p50_ms"],
        harness_p99_ms=figures.run["harness_p99_ms"],
        start_skew_p99_ms=figures.run["skew_p99_ms"],
        start_skew_max_ms=figures.run["skew_max_ms"],
        time_to_100_ms=found["time_to_ms"]["100"],
        shared_egress=carried.shared_egress,
        shared_machine=carried.shared_machine,
        machine_types=len(carried.types) or None,
    )
    of_shards = [
        verdict.ShardFigures(shard=shard, **row)
        for shard, row in sorted(figures.shards.items())
    ]
    judged = verdict.judge(run, of_shards, plan.thresholds)
    return {
        "level": judged.level.word,
        "reasons": [_finding(finding) for finding in judged.reasons],
        "findings": [_finding(finding) for finding in judged.findings],
        "shards": {str(k): v.word for k, v in sorted(judged.shards.items())},
    }


def _finding(finding: verdict.Finding) -> dict[str, Any]:
    return {
        "check": finding.check.name,
        "means": finding.check.means,
        "of": finding.check.of,
        "unit": finding.check.unit,
        "level": finding.level.word,
        "value": _rounded(finding.value),
        "threshold": _rounded(finding.threshold),
        "suspect": _rounded(finding.suspect),
        "invalid": _rounded(finding.invalid),
        "shards": list(finding.shards[:SHARDS_LISTED_MAX]),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 6)
