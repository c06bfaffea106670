"""How latencies are spread: by size, and in order of submission."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from runs.charts.parts import calm, figure_of, log_ticks, series


def size_figure(
    bins: Sequence[Mapping[str, Any]],
    *,
    rows: str,
    phase: str,
    marks: Mapping[str, float | None],
) -> dict[str, Any]:
    """How many latencies fall in each bin (log scale); marks: name → µs."""
    x = [bin["from_us"] / 1_000 for bin in bins] + [bins[-1]["to_us"] / 1_000]
    y = [bin["count"] for bin in bins] + [0]
    trace = series("sandboxes", x, y, width=1.5)
    trace.fill = "tozeroy"
    trace.customdata = [
        f"{bin['from_us'] / 1_000:.3f}&most_ms={bin['to_us'] / 1_000:.3f}"
        for bin in bins
    ] + [f"{x[-1]:.3f}"]
    trace.meta = {
        "token": "proven",
        "click": f"{rows}?of={phase}&sort=-{phase}&least_ms=",
    }
    known = {name: value / 1_000 for name, value in marks.items() if value is not None}
    return figure_of(
        [trace],
        calm(height=300, x_title="ms, log scale", y_title="sandboxes"),
        {
            "shapes": [_mark_line(at) for at in known.values()],
            "annotations": [_mark_name(name, at) for name, at in known.items()],
            "showlegend": False,
            "margin": {"t": 48},
            "xaxis": {"type": "log", **log_ticks(x[0], x[-1])},
            "hovermode": "x",
        },
    )


def _mark_line(x: float) -> dict[str, Any]:
    ends = {"x0": x, "x1": x, "xref": "x", "y0": 0, "y1": 1, "yref": "y domain"}
    line = {"dash": "dot", "width": 1}
    return {"type": "line", "name": "mark", "line": line, **ends}


def _mark_name(text: str, x: float) -> dict[str, Any]:
    """On a log axis an annotation is placed by the logarithm, a line is not."""
    place = {"x": math.log10(x), "xref": "x", "y": 1, "yref": "y domain"}
    anchors = {"xanchor": "center", "yanchor": "bottom"}
    return {"text": text, "name": "mark", "showarrow": False, **place, **anchors}


def submission_figure(
    bins: Sequence[Mapping[str, Any]], *, rows: str, phase: str
) -> dict[str, Any]:
    """Least, P50, P95 and largest latency in order of submission (log scale)."""
    x = [bin["first"] + 1 for bin in bins]
    names = {"max": "max_us", "P95": "p95_us", "P50": "p50_us", "min": "min_us"}
    widths = {"max": 1.0, "P95": 1.25, "P50": 2.5, "min": 1.0}
    traces = [
        series(
            name,
            x,
            [None if bin[key] is None else bin[key] / 1_000 for bin in bins],
            width=widths[name],
            dash="dot" if name in ("max", "min") else "solid",
            shape="linear",
        )
        for name, key in names.items()
    ]
    for trace in traces:
        trace.customdata = [f"{bin['first']}-{bin['last']}" for bin in bins]
        trace.meta = {"token": "proven", "click": f"{rows}?sort=-{phase}&rank="}
        trace.hovertemplate = "%{y:,.3~s} ms<extra>" + str(trace.name) + "</extra>"
    known = [
        bin[key] / 1_000
        for bin in bins
        for key in names.values()
        if bin[key] is not None
    ]
    ticks = log_ticks(min(known, default=1.0), max(known, default=1.0))
    return figure_of(
        traces,
        calm(height=300, x_title="place in order of submission", y_title="ms"),
        {
            "margin": {"t": 48},
            "xaxis": {"tickformat": ",d", "rangemode": "normal"},
            "yaxis": {"type": "log", "rangemode": "normal", "tickformat": None} | ticks,
        },
    )
