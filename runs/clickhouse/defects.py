"""What is wrong with a Run's raw record: lines set aside, gaps, contradictions."""

from __future__ import annotations

from dataclasses import dataclass

from runs.clickhouse import client
from runs.clickhouse.facts import RunFacts

DEFECTS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Defect:
    """`line` is 1-based in the object `key`; 0 where it is not about one line."""

    reason: str
    key: str
    line: int
    shard: int | None
    attempt: int | None
    detail: str


# Gaps of seq start at 0, and an object that is there but unreadable leaves none.
_ALL = """
    SELECT toString(reason) AS reason, key, line, if(key LIKE '%/shards/%',
        toNullable(shard), NULL) AS shard,
        if(key LIKE '%/shards/%', toNullable(attempt), NULL) AS attempt, detail
    FROM defects FINAL WHERE run = {run:String}
    UNION ALL
    SELECT 'gap:n', '', 0, shard, attempt, toString(g.1) || '-' || toString(g.2)
    FROM attempts FINAL ARRAY JOIN gaps AS g WHERE run = {run:String}
    UNION ALL
    SELECT 'conflict', '', 0, shard, attempt, 'n ' || toString(c)
    FROM attempts FINAL ARRAY JOIN conflicts AS c WHERE run = {run:String}
    UNION ALL
    SELECT 'clock:disagree', '', 0, shard, attempt, ''
    FROM attempts FINAL WHERE run = {run:String} AND disagree
    UNION ALL
    SELECT 'gap:seq', '', 0, shard, attempt,
        type || ' ' || toString(g.1) || '-' || toString(g.2)
    FROM (
        SELECT shard, attempt, toString(type) AS type,
            arraySort(groupUniqArray(toInt64(seq))) AS seqs,
            arrayFilter(g -> g.1 <= g.2, arrayMap((p, x) -> (p + 1, x - 1),
                arrayPushFront(arrayPopBack(seqs), toInt64(-1)), seqs)) AS missing
        FROM (
            SELECT shard, attempt, type, seq FROM segments FINAL
            WHERE run = {run:String} AND type IN ('events', 'log')
            UNION ALL
            SELECT shard, attempt, if(key LIKE '%/log-%', 'log', 'events'),
                toUInt32OrZero(extract(key, '-(\\\\d+)\\\\.[a-z.]+$'))
            FROM defects FINAL WHERE run = {run:String} AND line = 0
                AND reason IN ('unreadable', 'empty') AND key LIKE '%/shards/%'
        )
        GROUP BY shard, attempt, type
    ) ARRAY JOIN missing AS g
    UNION ALL
    SELECT DISTINCT kind, JSONExtractString(text, 'key'), 0,
        toNullable(toUInt32(JSONExtractUInt(text, 'shard'))), NULL,
        if(kind = 'absent', 'reported by its agent, not in the bucket',
            'in the bucket, but not as its agent reported it')
    FROM journal FINAL WHERE run = {run:String} AND kind IN ('absent', 'altered')
    UNION ALL
    SELECT 'settled_again', '', 0, shard, attempt, 'sandbox ' || toString(sandbox)
    FROM sandboxes FINAL ARRAY JOIN range(settled_again) AS again
        WHERE run = {run:String}
    UNION ALL
    SELECT 'duplicate_create', '', 0, shard, attempt, 'sandbox ' || toString(sandbox)
    FROM sandboxes FINAL WHERE run = {run:String} AND duplicate_create
"""


def defects(run: RunFacts, limit: int = 1_000) -> list[Defect]:
    """In a fixed order, at most `limit`; those of the Run itself come first."""
    rows = client.query_rows(
        f"SELECT * FROM ({_ALL}) ORDER BY reason, key, line, shard, attempt, detail"
        " LIMIT {limit:UInt32}",
        {"run": run.code, "limit": min(limit, DEFECTS_MAX)},
        name="defects",
    )
    own = [Defect(reason, "", 0, None, None, "") for reason in run.defects]
    return [*own, *(Defect(**row) for row in rows)][:limit]


def defect_count(run: RunFacts) -> int:
    rows = client.query_rows(
        f"SELECT count() AS n FROM ({_ALL}) LIMIT 1", {"run": run.code}, name="defects"
    )
    return int(rows[0]["n"]) + len(run.defects)
