"""What our own rig did: the start of each Shard, and Shards by their size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from runs.charts.parts import calm, figure_of, level, series


def start_figure(
    shards: Sequence[Mapping[str, Any]], *, page: str, suspect_ms: float | None
) -> dict[str, Any]:
    """Harness delay (P99) and the latest create of each Shard, in ms.

    page: the Run's address; a click leads to the Shard.
    """
    x = [row["shard"] for row in shards]
    series = {
        "latest create after plan": [row["skew_max_us"] for row in shards],
        "harness delay, P99": [row["delay_p99_us"] for row in shards],
    }
    traces = [
        go.Scatter(
            x=x,
            y=[None if us is None else us / 1_000 for us in values],
            name=name,
            mode="markers",
            marker={
                "size": 7 if len(x) <= 100 else 4,
                "symbol": "circle" if "P99" in name else "line-ew-open",
            },
            customdata=[str(shard) for shard in x],
            meta={
                "token": "proven" if "P99" in name else "implied",
                "click": f"{page}/shards/",
            },
            hovertemplate="%{y:,.3~s} ms<extra>" + name + "</extra>",
        )
        for name, values in series.items()
    ]
    limit: dict[str, Any] = {}
    if suspect_ms is not None:
        said = f"SUSPECT above {suspect_ms:.3g} ms (delay)"
        line, name = level(suspect_ms, said, right=False)
        limit = {"shapes": [line], "annotations": [name]}
    return figure_of(
        traces,
        calm(height=260, x_title="Shard", y_title="ms"),
        limit,
        {"margin": {"t": 40}, "yaxis": {"tickformat": None}},
    )


def sizes_figure(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Harness delay and loop lag (ms) and CPU (%) of a Shard against its size."""
    x = [row["size"] for row in rows]
    names = {
        "harness delay P99, ms": "harness_delay_p99_ms",
        "loop lag, ms": "loop_lag_ms",
        "loop CPU, %": "loop_cpu_pct",
    }
    traces = [
        series(name, x, [row[key] for row in rows], width=2, shape="linear")
        for name, key in names.items()
    ]
    for trace, token, dash in zip(
        traces,
        ("proven", "target", "implied"),
        ("solid", "dash", "dot"),
        strict=True,
    ):
        trace.meta = {"token": token}
        trace.line.dash = dash
    return figure_of(
        traces,
        calm(height=320, x_title="sandboxes a Shard", y_title="ms or %"),
        {"xaxis": {"type": "log", "tickvals": x}},
    )
