"""What carried a Run, as its journal tells: counts and kinds, no names or addresses."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runs.clickhouse import client

LINES_MAX = 25_000
KINDS_SHOWN_MAX = 20
SHARDS_MAX = 20_000
ATTEMPTS_MAX = 100  # of a Shard
_LINES = """
SELECT text FROM journal FINAL
WHERE run = {run:String} AND kind IN ('machine', 'provisioned', 'state')
ORDER BY seq, line LIMIT {limit:UInt32}
"""
_CARRIERS = """
SELECT text FROM journal FINAL
WHERE run = {run:String} AND kind = 'machine' AND arrayExists(
    pair -> pair[1] = {shard:Int64},
    JSONExtract(text, 'attempts', 'Array(Array(Int64))'))
ORDER BY seq, line LIMIT {limit:UInt32}
"""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The fleet of a Run at its release; None or empty where nobody said.

    shared_*: Shards whose address or machine carries another Shard too. kinds: how many
    hosts by each. launch_to_armed_s: from the Run's turn to the decision to release.
    """

    hosts: int
    shared_egress: int | None
    shared_machine: int | None
    egress_addresses: int | None
    machines: int | None
    types: Mapping[str, int]
    regions: Mapping[str, int]
    zones: Mapping[str, int]
    kernels: Mapping[str, int]
    versions: Mapping[str, int]
    provisioned: Mapping[str, Any]
    provision_s: float | None
    arm_s: float | None
    launch_to_armed_s: float | None


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """When Shards would have fired, in ms by the Run's clock; None without any."""

    shards: int
    skew_p99_ms: float | None  # P99 − P0 of corrected T0 over the Shards
    skew_max_ms: float | None
    late_max_ms: float | None  # the last of them after T0
    clock_bound_ms: float | None  # the worst best sample of any Shard


# A host is one agent process: Shards of one share its loop, its machine and its path.
# A Shard of which nobody says who carried it is taken to have its own.
HOSTS = """
    SELECT shard, argMax(said, attempt) AS host FROM (
        SELECT shard, attempt, if(host IS NULL, 'shard ' || toString(shard),
            assumeNotNull(host) || ' ' || ifNull(toString(pid), '') || ' '
                || ifNull(egress, '')) AS said
        FROM events WHERE run = {run:String} AND kind = 'agent_started' AND judged
    ) GROUP BY shard"""
_HOST_OF = f"""
SELECT shard, host FROM ({HOSTS}) ORDER BY shard LIMIT {{limit:UInt32}}
"""


def host_of(run: str) -> dict[int, str]:
    """What carried each Shard; one that no agent spoke for is not in it."""
    bound = {"run": run, "limit": SHARDS_MAX}
    rows = client.query_rows(_HOST_OF, bound, name="host_of")
    return {row["shard"]: row["host"] for row in rows}


def carriers(run: str, shard: int) -> list[dict[str, Any]]:
    """The journal's lines of what carried the Attempts of a Shard, oldest first."""
    bound = {"run": run, "shard": shard, "limit": ATTEMPTS_MAX}
    rows = client.query_rows(_CARRIERS, bound, name="carriers")
    return [json.loads(row["text"]) for row in rows]


_REHEARSED = """
SELECT count() AS shards, quantileExactOrNull(0.99)(late) / 1000 AS p99,
    minOrNull(late) / 1000 AS least, maxOrNull(late) / 1000 AS most,
    maxOrNull(bound) / 1000 AS bound
FROM (
    SELECT e.at_us + a.offset[indexOf(a.half, arrayMin(a.half))]
            - (SELECT any(t0_us) FROM events
               WHERE run = {run:String} AND kind = 'released' AND judged) AS late,
        arrayMin(a.half) AS bound
    FROM events AS e
    INNER JOIN (SELECT * FROM attempts FINAL
                WHERE run = {run:String} AND samples > 0) AS a USING (shard, attempt)
    WHERE e.run = {run:String} AND e.kind = 'settled' AND e.judged
) LIMIT 1
"""


def rehearsed(run: str) -> Rehearsed:
    """Of a Run that creates nothing, a Shard is settled at the instant it fires."""
    row = client.query_rows(_REHEARSED, {"run": run}, name="rehearsed")[0]
    if not row["shards"]:
        return Rehearsed(0, None, None, None, None)
    return Rehearsed(
        shards=row["shards"],
        skew_p99_ms=round(row["p99"] - row["least"], 3),
        skew_max_ms=round(row["most"] - row["least"], 3),
        late_max_ms=round(row["most"], 3),
        clock_bound_ms=round(row["bound"], 3),
    )


def fleet(run: str) -> Fleet:
    """One query; at most LINES_MAX lines of the journal."""
    bound = {"run": run, "limit": LINES_MAX}
    rows = client.query_rows(_LINES, bound, name="machines")
    return describe([json.loads(row["text"]) for row in rows])


def describe(lines: Sequence[Mapping[str, Any]]) -> Fleet:
    """The same of journal lines: `machine`, `provisioned` and `state`."""
    machines = [line for line in lines if line.get("kind") == "machine"]
    began, armed, released = (
        _entered(lines, state) for state in ("provisioning", "arming", "bursting")
    )
    asked = [line for line in lines if line.get("kind") == "provisioned"]
    return Fleet(
        hosts=len(machines),
        shared_egress=_shared(machines, "egress"),
        shared_machine=_shared(machines, "node"),
        egress_addresses=_distinct(machines, "egress"),
        machines=_distinct(machines, "node"),
        types=_kinds(machines, "type"),
        regions=_kinds(machines, "region"),
        zones=_kinds(machines, "zone"),
        kernels=_kinds(machines, "kernel"),
        versions=_kinds(machines, "version"),
        provisioned=_provisioned(asked),
        provision_s=_between(began, armed),
        arm_s=_between(armed, released),
        launch_to_armed_s=_between(began, released),
    )


def _shared(machines: Iterable[Mapping[str, Any]], name: str) -> int | None:
    shards: Counter[str] = Counter()
    for line in machines:
        if line.get(name):
            shards[str(line[name])] += len(line.get("attempts") or ())
    return sum(n for n in shards.values() if n > 1) if shards else None


def _distinct(machines: Iterable[Mapping[str, Any]], name: str) -> int | None:
    return len({line[name] for line in machines if line.get(name)}) or None


def _kinds(machines: Iterable[Mapping[str, Any]], name: str) -> dict[str, int]:
    said = Counter(str(line[name]) for line in machines if line.get(name))
    return dict(sorted(said.most_common(KINDS_SHOWN_MAX)))


def _provisioned(asked: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = ("asked", "granted", "started", "reasons", "usd_per_h")
    return {name: asked[-1].get(name) for name in names} if asked else {}


def _entered(lines: Iterable[Mapping[str, Any]], state: str) -> int | None:
    for line in lines:
        if line.get("kind") == "state" and line.get("to") == state:
            at_us = line.get("at_us")
            return at_us if isinstance(at_us, int) else None
    return None


def _between(earlier_us: int | None, later_us: int | None) -> float | None:
    if earlier_us is None or later_us is None:
        return None
    return round((later_us - earlier_us) / 1e6, 3)
