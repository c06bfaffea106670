"""The site's own facts about a Run, as they stand in the bucket's journal."""

from __future__ import annotations

import json
from typing import Any

from runs.clickhouse import client

LINES_MAX = 50_000
_LINES = """
SELECT text FROM journal FINAL
WHERE run = {run:String} AND kind IN ('state', 'released', 'holding', 'teardown',
    'abandoned', 'clock', 'attempt', 'leftovers', 'reaped')
ORDER BY seq, line LIMIT {limit:UInt32}
"""


def lines(run: str) -> list[dict[str, Any]]:
    """State changes and decisions in order, each with `kind` and `at_us`."""
    rows = client.query_rows(_LINES, {"run": run, "limit": LINES_MAX}, name="journal")
    found = [json.loads(row["text"]) for row in rows]
    return [line for line in found if isinstance(line.get("at_us"), int)]
