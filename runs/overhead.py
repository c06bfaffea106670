"""What our own client adds to a create, per Provider and transport: measured, dated.

`python -m bench.fairness --record` (or `make bench RECORD=1`) writes the figures, on an
idle machine; a Run's page quotes them. What was not measured has none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

FIGURES = Path(__file__).with_name("overhead.json")


@dataclass(frozen=True, slots=True)
class Overhead:
    """Added to a create that the vendor answers after exactly a second, in ms.

    together: creates under way at once. measured: the day (YYYY-MM-DD).
    """

    p50_ms: float
    p99_ms: float
    together: int
    measured: str
    machine: str


def overhead_of(provider: str, transport: str) -> Overhead | None:
    """None where it was never measured."""
    return _figures().get((provider, transport))


@lru_cache(maxsize=1)
def _figures() -> Mapping[tuple[str, str], Overhead]:
    rows = json.loads(FIGURES.read_text())["rows"] if FIGURES.exists() else []
    return {
        (row["vendor"], row["transport"]): Overhead(
            row["p50_ms"],
            row["p99_ms"],
            row["together"],
            row["measured"],
            row["machine"],
        )
        for row in rows
    }
