"""What the sandboxes said they are, and how far away the Provider is."""

from __future__ import annotations

from dataclasses import dataclass

from runs.clickhouse import client, journal
from runs.clickhouse.facts import RunFacts


@dataclass(frozen=True, slots=True)
class Observed:
    """Medians over the Shards that know; None where none does.

    One sandbox a Shard is asked, at the start of the hold. A connect takes one round
    trip. since_previous_s: from the end of the site's last Run at this Provider to T0.
    """

    shards: int
    cpus: float | None
    cpus_least: float | None
    memory_bytes: int | None
    memory_bytes_least: int | None
    connect_us: int | None
    since_previous_s: float | None


_OBSERVED = """
SELECT
    count(own.cpus) AS shards,
    quantileExactOrNull(0.5)(own.cpus) AS cpus,
    min(own.cpus) AS cpus_least,
    quantileExactOrNull(0.5)(own.memory) AS memory_bytes,
    min(own.memory) AS memory_bytes_least,
    quantileExactOrNull(0.5)(own.connect) AS connect_us
FROM (
    SELECT shard,
        minIf(e.cpus, kind = 'observed') AS cpus,
        minIf(e.memory_bytes, kind = 'observed') AS memory,
        minIf(e.connect_us, kind = 'armed') AS connect
    FROM events AS e
    WHERE run = {run:String} AND kind IN ('observed', 'armed')
    GROUP BY shard
) AS own
LIMIT 1
"""


def observed(run: RunFacts) -> Observed:
    """From the `observed` and `armed` events, and the journal."""
    row = client.query_rows(_OBSERVED, {"run": run.code}, name="observed")[0]
    return Observed(**row, since_previous_s=_since_previous_s(run.code))


def _since_previous_s(code: str) -> float | None:
    for line in journal.lines(code):
        t0_us, previous_us = line.get("t0_us"), line.get("previous_us")
        if line.get("kind") == "released" and isinstance(t0_us, int):
            if not isinstance(previous_us, int):
                return None
            return round((t0_us - previous_us) / 1e6, 1)
    return None
