"""How large may a Shard be on this machine? Runs in a world without latency say so.

In a world that answers at once everything that is late is our own doing, so the size
at which a Shard stops being VALID is a property of agent and machine alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIZES = (10, 30, 100, 300, 1_000)
FILE = "calibration.json"
FILE_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Row:
    """One Run of one Shard; None where the Run did not say."""

    size: int
    code: str
    level: str  # of the Shard: with one Shard the Run's share rules mean nothing
    harness_delay_p99_ms: float | None
    harness_delay_max_ms: float | None
    loop_lag_ms: float | None
    loop_cpu_pct: float | None
    held: int | None

    @property
    def cpu_per_sandbox_pct(self) -> float | None:
        return None if self.loop_cpu_pct is None else self.loop_cpu_pct / self.size


def calibrating_plan(size: int) -> dict[str, Any]:
    """One Shard of `size` Sandboxes, alone with one agent, probed as by default."""
    return {
        "provider": "sim",
        "sandbox_count": size,
        "sandboxes_per_shard": size,
        "fleet": {"shards_per_host": 1},
        "hold_s": 12,
        "probe_interval_s": 5,
        "probe_timeout_s": 2,
        "probe_failures_max": 2,
        "create_timeout_s": 10,
        "ready_timeout_s": 5,
        "final_spread_s": 5,
        "heartbeat_interval_s": 1,
        "witness": True,
        "note": "calibration",
        "world": {"profile": "zero"},
    }


def row_of(size: int, code: str, summary: Mapping[str, Any]) -> Row:
    """What one sealed Run says of its one Shard."""
    findings = {found["check"]: found for found in summary["verdict"]["findings"]}
    held = summary.get("held")
    return Row(
        size=size,
        code=code,
        level=summary["verdict"]["shards"].get("0", "VALID"),
        harness_delay_p99_ms=findings["harness_delay_p99_ms"]["value"],
        harness_delay_max_ms=findings["harness_delay_max_ms"]["value"],
        loop_lag_ms=findings["loop_lag_ms"]["value"],
        loop_cpu_pct=findings["loop_cpu_pct"]["value"],
        held=held["proven"] if held else None,
    )


def largest_valid(rows: Sequence[Row]) -> int | None:
    """The largest size of which it and every smaller one were VALID."""
    largest = None
    for row in sorted(rows, key=lambda row: row.size):
        if row.level != "VALID":
            break
        largest = row.size
    return largest


def as_json(rows: Sequence[Row], *, at: str, version: str | None) -> dict[str, Any]:
    """What is stored, printed and shown."""
    return {
        "at": at,
        "cpu_count": os.cpu_count(),
        "version": version,
        "largest_valid": largest_valid(rows),
        "rows": [
            {
                "size": row.size,
                "code": row.code,
                "level": row.level,
                "harness_delay_p99_ms": row.harness_delay_p99_ms,
                "harness_delay_max_ms": row.harness_delay_max_ms,
                "loop_lag_ms": row.loop_lag_ms,
                "loop_cpu_pct": row.loop_cpu_pct,
                "cpu_per_sandbox_pct": row.cpu_per_sandbox_pct,
                "held": row.held,
            }
            for row in rows
        ],
    }


def store(data: Path, found: Mapping[str, Any]) -> None:
    """Replace the last calibration of this installation."""
    path = data / FILE
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(found, indent=1))
    fresh.replace(path)


def stored(data: Path) -> dict[str, Any] | None:
    """The last calibration; None where there is none that can be read."""
    try:
        with (data / FILE).open("rb") as file:
            found = json.loads(file.read(FILE_BYTES_MAX))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("rows") else None
