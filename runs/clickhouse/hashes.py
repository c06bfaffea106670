"""sha256 and size of stored objects, computed where they are read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from runs.clickhouse import client
from runs.clickhouse.client import ObjectStore, code_literal
from runs.clickhouse.ingest import KEYS_MAX
from runs.clickhouse.store import READ_SETTINGS, is_absent, key_of, source
from runs.errors import QueryError

ABSENT_CODE = 107
_PLAIN = re.compile(r"[A-Za-z0-9/._-]+")


def hash_objects(
    store: ObjectStore, run: str, keys: Sequence[str]
) -> list[dict[str, Any]]:
    """{"key", "bytes", "sha256"} of each object as stored, by key.

    A key that is absent is an error (QueryError).
    """
    plain = sorted(key for key in set(keys) if _PLAIN.fullmatch(key))
    parts = [plain[at : at + KEYS_MAX] for at in range(0, len(plain), KEYS_MAX)]
    found: dict[str, dict[str, Any]] = {}
    for rows in client.at_once(partial(_hashed, store, run), parts):
        found |= {row["key"]: row for row in rows}
    for key in plain:
        if key not in found and is_absent(store, key):
            raise QueryError(f"{key} is absent", code=ABSENT_CODE, retryable=False)
    return [found.get(key) or _empty(key) for key in plain]


def _hashed(store: ObjectStore, run: str, keys: Sequence[str]) -> list[dict[str, Any]]:
    return client.query_rows(
        f"""
        SELECT {key_of(run)} AS key, length(blob) AS bytes,
            lower(hex(SHA256(blob))) AS sha256
        FROM {source(store, keys, unpack=False)} LIMIT {len(keys)}
        """,
        name="hash_objects",
        settings=READ_SETTINGS,
    )


def with_events(run: str, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with "events": the lines that were read from it, 0 of no segment."""
    read = client.query_rows(
        f"SELECT key, toInt64(lines) AS events FROM segments FINAL"
        f" WHERE run = {code_literal(run)} LIMIT {len(rows) + 1}",
        name="hash_objects",
    )
    events = {row["key"]: row["events"] for row in read}
    return [{**row, "events": events.get(row["key"], 0)} for row in rows]


def _empty(key: str) -> dict[str, Any]:
    """ClickHouse answers no row for an object without a byte."""
    nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    return {"key": key, "bytes": 0, "sha256": nothing}
