"""The judgement: one row for every planned Sandbox (measurement.md §2, §3, §4).

Two statements (judgement/*.sql), both inside ClickHouse. `attempts` gets what is true
of an Attempt as a whole: its clock samples, thinned to those that can be the best for
some instant, its gaps and conflicts. `sandboxes` gets each Sandbox's life, corrected
and classed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from runs.clickhouse import client
from runs.clickhouse.client import (
    BESIDE_A_RUN,
    STAGING,
    code_literal,
    integers,
    literal,
)
from runs.clickhouse.facts import INSTANT_MAX, RunFacts
from runs.clickhouse.ingest import put_in_place

JUDGEMENT_DIR = Path(__file__).parent / "judgement"
TABLES = ("attempts", "sandboxes")
STATEMENTS = ("attempts.sql", "sandboxes.sql")
NETWORK_WINDOW_US = 10_000_000
SANDBOXES_A_STATEMENT = 10_000
FINAL_SETTINGS = {"max_threads": 1}  # of one of several statements at once
DRIFT_DIVISOR = 10_000  # 100 ppm
TICK_US = 250_000
# ticks gained >= 0.8 * gap / 250 ms - 2, in integers
GAP_US_PER_TICK = TICK_US * 10 // 8
REFUSED = ("rate_limited", "quota", "capacity", "auth", "invalid_request")
OUTCOMES = (
    "success",
    "partial",
    "readiness_failed",
    "failed",
    "unobserved",
    "not_attempted",
)

_NAME = re.compile(r"<([a-z_]+)>")


def classify(
    run: RunFacts,
    shards: Sequence[int] | None,
    *,
    final: bool,
    at_once: int = SANDBOXES_A_STATEMENT,
) -> None:
    """Judge these Shards' Sandboxes anew; all Shards where None.

    While the Run is live (`final` false) what may still change is `pending`. A
    final judgement of all Shards replaces the Run's rows whole.
    """
    if shards is not None and not shards:
        return
    whole = final and shards is None
    prefix = STAGING if whole else ""
    if whole:
        for table in TABLES:
            partition = code_literal(run.code)
            client.command(
                f"ALTER TABLE {prefix}{table} DROP PARTITION {partition}",
                name="classify",
            )
    judge = partial(_judge, run, prefix=prefix, final=final, every=shards is None)
    parts = _parts(run, shards, at_once)
    if final:
        client.at_once(judge, parts)
    else:
        for part in parts:
            judge(part)
    if whole:
        put_in_place(TABLES, run.code, name="classify")


def _judge(
    run: RunFacts, shards: Sequence[int], *, prefix: str, final: bool, every: bool
) -> None:
    """Judge these Shards' Sandboxes; `every`: they are part of all that there are."""
    names = _names(run, shards, final=final) | {"prefix": prefix}
    if every and shards[-1] == run.shard_count - 1:
        # Attempts of Shards that nobody planned are facts as well.
        also = f"OR shard >= {int(run.shard_count)}"
        names["of_shards"] = f"AND (shard IN {integers(shards)} {also})"
    for name in STATEMENTS:
        client.command(
            _filled((JUDGEMENT_DIR / name).read_text(), names),
            name="classify",
            settings=FINAL_SETTINGS if final else BESIDE_A_RUN,
        )


def _parts(
    run: RunFacts, shards: Sequence[int] | None, at_once: int
) -> Iterator[Sequence[int]]:
    """Shards that are judged by one statement: its memory grows with them."""
    chosen = range(run.shard_count) if shards is None else sorted(shards)
    size = max(1, at_once // max(1, run.sandboxes_per_shard))
    for at in range(0, len(chosen), size):
        yield chosen[at : at + size]


def _filled(statement: str, names: Mapping[str, str]) -> str:
    return _NAME.sub(lambda found: names[found[1]], statement)


def _names(run: RunFacts, shards: Sequence[int], *, final: bool) -> dict[str, str]:
    """What stands for each <name> in the statements; all of it literals."""
    clock_id = None if run.clock_id is None else literal(run.clock_id)
    return {
        "run": code_literal(run.code),
        "revision": str(time.time_ns()),
        "of_shards": f"AND shard IN {integers(shards)}",
        "planned_shards": integers(shards),
        "clock": f"AND ifNull(clock_id, {clock_id}) = {clock_id}" if clock_id else "",
        "sandbox_count": str(int(run.sandbox_count)),
        "per_shard": str(int(run.sandboxes_per_shard)),
        "shard_count": str(int(run.shard_count)),
        "witness": str(int(run.witness)),
        "over": str(int(final)),
        "drift": str(DRIFT_DIVISOR),
        "instant_max": str(INSTANT_MAX),
        "network": str(NETWORK_WINDOW_US),
        "gap_per_tick": str(GAP_US_PER_TICK),
        "refused": "(" + ", ".join(literal(cause) for cause in REFUSED) + ")",
    }
