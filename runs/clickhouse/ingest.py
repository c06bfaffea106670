"""Raw segments into ClickHouse, read by ClickHouse itself (raw-format.md).

Each object comes as one row (RawBLOB) that ClickHouse splits into lines, so that
every line has its number and the end of an object can be told from its middle.
A list of objects that fails is halved until the one at fault stands alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from runs.clickhouse import client
from runs.clickhouse.client import (
    BESIDE_A_RUN,
    STAGING,
    ObjectStore,
    code_literal,
    literal,
)
from runs.clickhouse.store import READ_SETTINGS, is_absent, key_of, source
from runs.errors import QueryError
from shardagent.wire import Plan

KEYS_MAX = 1_000  # objects a statement
SEALING_KEYS_MAX = 500  # of several at once
# Beside a live Run little memory counts; at the end of one speed does: then there are
# several statements at once. Blocks are of so many objects, each up to 1 MiB before it
# is taken apart.
LIVE_SETTINGS = {
    "max_block_size": 8,
    "max_threads": 1,
    "max_parsing_threads": 1,
    "max_download_threads": 1,
    "max_insert_threads": 1,
    "min_insert_block_size_rows": 16_384,
    "min_insert_block_size_bytes": 8 * 1024 * 1024,
    **BESIDE_A_RUN,
}
SEALING_SETTINGS = {
    "max_block_size": 32,
    "max_threads": 1,
    "max_insert_threads": 1,
    "min_insert_block_size_rows": 131_072,
    "min_insert_block_size_bytes": 64 * 1024 * 1024,
}
# zstd, zlib, checksum, and ends of data that come too early.
CORRUPT_CODES = frozenset({561, 354, 40, 271, 33, 32, 117})
_ABSENT = "HTTP response code: 404:"  # not "404": a key may hold that
RECORD_TABLES = ("segments", "events", "defects", "log_lines", "journal", "truth")

_KEY = re.compile(
    r"runs/(?P<run>[a-z0-9-]{1,40})/(?:"
    r"shards/\d{1,9}/\d{1,9}/(?:events-\d{1,9}\.ndjson|log-\d{1,9}\.txt)"
    r"|(?:journal|truth)-\d{1,9}\.ndjson)(?:\.zst|\.gz)?"
)


def ingest_segments(
    store: ObjectStore, plan: Plan, keys: Sequence[str]
) -> tuple[str, ...]:
    """Read these objects; doing it twice leaves the same tables.

    Returns the keys that could not be read. An absent object is no more than that: it
    may come yet. A corrupt one is a defect as well, and so is a key no reader knows.
    """
    return _ingest(store, plan, keys, prefix="")


def replace_run(store: ObjectStore, plan: Plan, keys: Sequence[str]) -> tuple[str, ...]:
    """Build the Run's record anew from all its keys and put it in place at once.

    Returns the keys that could not be read; each is a defect.
    """
    partition = code_literal(plan.code)
    for table in RECORD_TABLES:
        client.command(
            f"ALTER TABLE {STAGING}{table} DROP PARTITION {partition}",
            name="replace_run",
        )
    failed = _ingest(store, plan, keys, prefix=STAGING)
    put_in_place(RECORD_TABLES, plan.code, name="replace_run")
    return failed


def put_in_place(tables: Sequence[str], run: str, *, name: str) -> None:
    """Swap a Run's staged partitions in, merged, and empty the staging tables."""
    client.at_once(partial(_put_in_place, run=run, name=name), tables)


def _put_in_place(table: str, *, run: str, name: str) -> None:
    partition = code_literal(run)
    staged = client.query_rows(
        f"SELECT count() AS rows FROM {STAGING}{table} WHERE run = {partition} LIMIT 1",
        name=name,
    )[0]["rows"]
    if not staged:  # ClickHouse refuses to replace by nothing
        client.command(f"ALTER TABLE {table} DROP PARTITION {partition}", name=name)
        return
    for statement in (
        f"OPTIMIZE TABLE {STAGING}{table} PARTITION {partition} FINAL",
        f"ALTER TABLE {table} REPLACE PARTITION {partition} FROM {STAGING}{table}",
        f"ALTER TABLE {STAGING}{table} DROP PARTITION {partition}",
    ):
        client.command(statement, name=name)


def forget_run(run: str) -> None:
    """Drop everything that is known of a Run; the bucket is untouched."""
    tables = (*RECORD_TABLES, "attempts", "sandboxes")
    for table in tables:
        client.command(
            f"ALTER TABLE {table} DROP PARTITION {code_literal(run)}",
            name="forget_run",
        )


def shard_count(plan: Plan) -> int:
    """The Plan's own count, or what follows from its sizes where it has none."""
    return plan.shard_count or -(-plan.sandbox_count // plan.sandboxes_per_shard)


def _ingest(
    store: ObjectStore, plan: Plan, keys: Sequence[str], *, prefix: str
) -> tuple[str, ...]:
    unique = list(dict.fromkeys(keys))
    wanted = [key for key in unique if _is_key_of(plan.code, key)]
    failed = dict.fromkeys(set(unique) - set(wanted), "bad_key")
    size = SEALING_KEYS_MAX if prefix else KEYS_MAX
    parts = [wanted[at : at + size] for at in range(0, len(wanted), size)]
    read = partial(_read, store, plan, prefix=prefix)
    for unread in client.at_once(read, parts) if prefix else map(read, parts):
        failed |= unread
    for key in _unseen(plan.code, wanted, prefix, failed):
        failed[key] = "absent" if is_absent(store, key) else "empty"
    corrupt = {key: why for key, why in failed.items() if prefix or why != "absent"}
    _add_defects(plan.code, corrupt, prefix)
    return tuple(key for key in unique if key in failed)


def _is_key_of(run: str, key: str) -> bool:
    match = _KEY.fullmatch(key)
    return match is not None and match["run"] == run


def _read(
    store: ObjectStore,
    plan: Plan,
    keys: Sequence[str],
    prefix: str,
    *,
    sure: bool = False,
) -> dict[str, str]:
    """Insert these objects; the ones that cannot be read, each with its reason.

    An object counts as unreadable only when it was so twice (`sure`).
    """
    if not keys:
        return {}
    try:
        client.command(
            _INSERT.format(
                prefix=prefix,
                source=source(store, keys),
                key=key_of(plan.code),
                run=code_literal(plan.code),
                per_shard=int(plan.sandboxes_per_shard),
                sandbox_count=int(plan.sandbox_count),
                shard_count=shard_count(plan),
            ),
            name="ingest_segments",
            settings=READ_SETTINGS | (SEALING_SETTINGS if prefix else LIVE_SETTINGS),
        )
    except QueryError as error:
        absent = error.code == 499 and _ABSENT in str(error)
        if not absent and error.code not in CORRUPT_CODES:
            raise
        if len(keys) == 1 and absent:
            return {keys[0]: "absent"}
        if len(keys) == 1 and sure:
            return {keys[0]: "unreadable"}
        if len(keys) == 1:  # a store that dies in the middle cuts objects short too
            return _read(store, plan, keys, prefix, sure=True)
        half = len(keys) // 2
        return _read(store, plan, keys[:half], prefix) | _read(
            store, plan, keys[half:], prefix
        )
    return {}


# Line 0 stands for the segment itself: `segments` is the ledger of what was read.
# All that is one per segment is computed before the lines are taken apart.
_INSERT = r"""
INSERT INTO {prefix}incoming
SELECT {run} AS run, key, type, shard, attempt, seq, line, text, lines, bytes, ended,
    first_line, header, {per_shard} AS per_shard, {sandbox_count} AS sandbox_count,
    {shard_count} AS shard_count
FROM (
    SELECT
        {key} AS key,
        multiIf(key LIKE '%/events-%', 'events', key LIKE '%/log-%', 'log',
                key LIKE '%/journal-%', 'journal', 'truth') AS type,
        toUInt32OrZero(extract(key, '/shards/(\\d+)/')) AS shard,
        toUInt32OrZero(extract(key, '/shards/\\d+/(\\d+)/')) AS attempt,
        toUInt32OrZero(extract(key, '-(\\d+)\\.[a-z.]+$')) AS seq,
        length(blob) AS bytes,
        endsWith(blob, '\n') AS ended,
        splitByChar('\n', if(ended, substring(blob, 1, bytes - 1), blob)) AS parts,
        length(parts) AS lines,
        toUInt64OrZero(extract(parts[1], '^#first_line (\\d+)\\s*$')) AS first_line,
        match(parts[1], '^#first_line \\d+\\s*$') AS header,
        arrayPushFront(parts, '') AS texts,
        range(0, toUInt32(lines + 1)) AS numbers
    FROM {source}
)
ARRAY JOIN texts AS text, numbers AS line
"""


def _unseen(
    run: str, keys: Sequence[str], prefix: str, failed: dict[str, str]
) -> list[str]:
    """Keys that were read without an error and gave nothing.

    ClickHouse takes a compressed frame that ends too early for an empty object.
    """
    seen: set[str] = set()
    for at in range(0, len(keys), KEYS_MAX):
        part = keys[at : at + KEYS_MAX]
        rows = client.query_rows(
            f"SELECT key FROM {prefix}segments WHERE run = {code_literal(run)}"
            f" AND key IN ({_listed(part)}) LIMIT {len(part) * 2}",
            name="ingest_segments",
        )
        seen |= {row["key"] for row in rows}
    return [key for key in keys if key not in seen and key not in failed]


def add_defects(run: str, reasons: dict[str, str]) -> None:
    """Defects of whole objects, by key: what the record itself cannot say."""
    _add_defects(run, reasons, prefix="")


def _add_defects(run: str, reasons: dict[str, str], prefix: str) -> None:
    rows = [
        f"({code_literal(run)}, {literal(key)}, 0, {literal(why)},"
        f" toUInt32OrZero(extract({literal(key)}, '/shards/(\\\\d+)/')),"
        f" toUInt32OrZero(extract({literal(key)}, '/shards/\\\\d+/(\\\\d+)/')), '')"
        for key, why in reasons.items()
    ]
    for at in range(0, len(rows), KEYS_MAX):
        client.command(
            f"INSERT INTO {prefix}defects VALUES {', '.join(rows[at : at + KEYS_MAX])}",
            name="ingest_segments",
        )


def _listed(keys: Sequence[str]) -> str:
    return ", ".join(literal(key) for key in keys)
