"""Charts as plotly figures; colours are named by token and set by the page's theme."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

BAND_COLOUR = "rgba(128,128,128,0.06)"


@dataclass(frozen=True, slots=True)
class Phase:
    """A faint vertical band of a chart; s since T0."""

    name: str
    from_s: float
    to_s: float


def curve_figure(
    points: Sequence[Mapping[str, int]],
    *,
    rows: str,
    target: int,
    phases: Sequence[Phase],
    clock_bound_us: int | None,
    live: bool = False,
    verdict: str = "",
) -> dict[str, Any]:
    """Proven (line), possible (band above it), implied (thin dashes), target (line).

    points: rows of elapsed_ms, proven, possible, implied, each exact at its instant.
    rows: the address of the explorer; a click leads to the Sandboxes of a point.
    verdict: the word that a picture of a doubtful Run carries wherever it is taken.
    """
    x = [point["elapsed_ms"] / 1_000 for point in points]
    bound = "" if clock_bound_us is None else f" ± {clock_bound_us / 1_000:.3g} ms"
    figure = go.Figure(
        [
            _line("implied", x, [p["implied"] for p in points], dash="dot", width=1),
            _line("possible", x, [p["possible"] for p in points], width=0.5),
            _line("proven", x, [p["proven"] for p in points], width=2.5, fill=True),
        ]
    )
    figure.add_hline(
        y=target,
        line_width=1,
        annotation_text=f"target {target:,}",
        annotation_position="bottom right",
        name="target",
    )
    for trace in figure.data:
        trace.customdata = [f"{p['elapsed_ms']}" for p in points]
        trace.meta = {
            "token": trace.name,
            "click": f"{rows}?alive={trace.name}&at_ms=",
        }
    _bands(figure, phases)
    upto = ", as far as probes have confirmed" if live else ""
    doubt = f" · {verdict}: our own rig may have had a part in it" if verdict else ""
    x_title = f"s since T0{bound}{upto}{doubt}"
    _calm(figure, height=380, x_title=x_title, y_title="sandboxes")
    return _plain(figure)


def deaths_figure(
    points: Sequence[Mapping[str, int]],
    *,
    rows: str,
    end_s: float,
    phases: Sequence[Phase],
) -> dict[str, Any]:
    """Deaths by each instant: those that were certain, and those that may have been.

    points: rows of elapsed_ms, certain, possible; they hold until the next.
    """
    x = [0.0, *(point["elapsed_ms"] / 1_000 for point in points)]
    names = ("possible", "certain")
    values = {name: [0, *(point[name] for point in points)] for name in names}
    if x[-1] < end_s:
        x.append(end_s)
        for row in values.values():
            row.append(row[-1])
    figure = go.Figure(
        [
            _line("possibly dead", x, values["possible"], width=0.5),
            _line("dead", x, values["certain"], width=2, fill=True),
        ]
    )
    for trace in figure.data:  # a click shows who died since the point before
        trace.customdata = ["0-0"] + [
            f"{before * 1_000:.0f}-{at * 1_000:.0f}"
            for before, at in zip(x, x[1:], strict=False)
        ]
        trace.meta = {"token": "failed", "click": f"{rows}?died_ms="}
    _bands(figure, phases)
    _calm(figure, height=200, x_title="s since T0", y_title="deaths")
    return _plain(figure)


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
    trace = _line("sandboxes", x, y, width=1.5)
    trace.fill = "tozeroy"
    trace.customdata = [
        f"{bin['from_us'] / 1_000:.3f}&most_ms={bin['to_us'] / 1_000:.3f}"
        for bin in bins
    ] + [f"{x[-1]:.3f}"]
    trace.meta = {
        "token": "proven",
        "click": f"{rows}?of={phase}&sort=-{phase}&least_ms=",
    }
    figure = go.Figure([trace])
    for name, value in marks.items():
        if value is not None:
            figure.add_vline(
                x=value / 1_000,
                line_width=1,
                line_dash="dot",
                name="mark",
                annotation={"text": name, "yref": "paper", "y": 1},
                annotation_position="top",
            )
            # On a log axis an annotation is placed by the logarithm, a line is not.
            figure.layout.annotations[-1].x = math.log10(value / 1_000)
    _calm(figure, height=300, x_title="ms, log scale", y_title="sandboxes")
    figure.update_layout(
        showlegend=False,
        margin={"t": 28},
        xaxis={"type": "log", **_log_ticks(x[0], x[-1])},
        hovermode="x",
    )
    return _plain(figure)


def submission_figure(
    bins: Sequence[Mapping[str, Any]], *, rows: str, phase: str
) -> dict[str, Any]:
    """Least, P50, P95 and largest latency in order of submission (log scale)."""
    x = [bin["first"] + 1 for bin in bins]
    names = {"max": "max_us", "P95": "p95_us", "P50": "p50_us", "min": "min_us"}
    widths = {"max": 1.0, "P95": 1.25, "P50": 2.5, "min": 1.0}
    figure = go.Figure(
        [
            _line(
                name,
                x,
                [None if bin[key] is None else bin[key] / 1_000 for bin in bins],
                width=widths[name],
                dash="dot" if name in ("max", "min") else "solid",
                shape="linear",
            )
            for name, key in names.items()
        ]
    )
    for trace in figure.data:
        trace.customdata = [f"{bin['first']}-{bin['last']}" for bin in bins]
        trace.meta = {"token": "proven", "click": f"{rows}?sort=-{phase}&rank="}
        trace.hovertemplate = "%{y:,.3~s} ms<extra>" + str(trace.name) + "</extra>"
    known = [
        bin[key] / 1_000
        for bin in bins
        for key in names.values()
        if bin[key] is not None
    ]
    _calm(figure, height=300, x_title="place in order of submission", y_title="ms")
    figure.update_layout(
        margin={"t": 28},
        xaxis={"tickformat": ",d", "rangemode": "normal"},
        yaxis={
            "type": "log",
            "rangemode": "normal",
            "tickformat": None,
            **_log_ticks(min(known, default=1.0), max(known, default=1.0)),
        },
    )
    return _plain(figure)


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
    figure = go.Figure(
        [
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
    )
    if suspect_ms is not None:
        figure.add_hline(
            y=suspect_ms,
            line_width=1,
            annotation_text=f"SUSPECT above {suspect_ms:.3g} ms (delay)",
            annotation_position="top left",
            name="target",
        )
    _calm(figure, height=260, x_title="Shard", y_title="ms")
    figure.update_layout(margin={"t": 40}, yaxis={"tickformat": None})
    return _plain(figure)


def sizes_figure(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Harness delay and loop lag (ms) and CPU (%) of a Shard against its size."""
    x = [row["size"] for row in rows]
    names = {
        "harness delay P99, ms": "harness_delay_p99_ms",
        "loop lag, ms": "loop_lag_ms",
        "loop CPU, %": "loop_cpu_pct",
    }
    figure = go.Figure(
        [
            _line(name, x, [row[key] for row in rows], width=2, shape="linear")
            for name, key in names.items()
        ]
    )
    for trace, token, dash in zip(
        figure.data,
        ("proven", "target", "implied"),
        ("solid", "dash", "dot"),
        strict=True,
    ):
        trace.meta = {"token": token}
        trace.line.dash = dash
    _calm(figure, height=320, x_title="sandboxes a Shard", y_title="ms or %")
    figure.update_layout(xaxis={"type": "log", "tickvals": x})
    return _plain(figure)


def compare_figure(
    curves: Sequence[tuple[str, Sequence[Mapping[str, int]], int]],
) -> dict[str, Any]:
    """Proven curves in % of each Run's own target; (name, points, target) of each.

    A name begins with the letter of its Run, which also chooses its colour.
    """
    dashes = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
    figure = go.Figure()
    for (name, points, target), dash in zip(curves, dashes, strict=False):
        trace = _line(
            name,
            [point["elapsed_ms"] / 1_000 for point in points],
            [100 * point["proven"] / target for point in points],
            width=2,
            dash=dash,
        )
        trace.meta = {"token": f"series-{name[0].lower()}"}
        trace.hovertemplate = "%{y:.2f} %<extra>" + name + "</extra>"
        figure.add_trace(trace)
    y_title = "% of the target"
    _calm(figure, height=380, x_title="s since T0", y_title=y_title)
    figure.update_layout(yaxis={"tickformat": None})
    return _plain(figure)


def _line(
    name: str,
    x: Sequence[float],
    y: Sequence[float | None],
    *,
    width: float,
    dash: str = "solid",
    fill: bool = False,
    shape: str = "hv",
) -> go.Scatter:
    """meta.token names the colour for the page. hv: a value holds until the next."""
    return go.Scatter(
        x=x,
        y=y,
        name=name,
        mode="lines",
        line={"width": width, "dash": dash, "shape": shape},
        fill="tonexty" if fill else None,
        meta={"token": name},
        hovertemplate="%{y:,}<extra>" + name + "</extra>",
    )


def _calm(figure: go.Figure, *, height: int, x_title: str, y_title: str) -> None:
    clear = "rgba(0,0,0,0)"
    figure.update_layout(
        margin={"l": 64, "r": 16, "t": 56, "b": 44},
        height=height,
        hovermode="x unified",
        showlegend=True,
        legend={"orientation": "h", "y": 1, "yref": "container", "yanchor": "top"},
        xaxis={"title": {"text": x_title}, "zeroline": False},
        yaxis={
            "title": {"text": y_title},
            "rangemode": "tozero",
            "tickformat": ",d",
            "automargin": True,
        },
        paper_bgcolor=clear,
        plot_bgcolor=clear,
    )
    figure.update_layout(legend={"x": 1, "xanchor": "right"})


def _log_ticks(least: float, most: float) -> dict[str, Any]:
    """1, 2 and 5 of each decade (or only 1) as plain numbers."""
    first, last = (
        math.floor(math.log10(max(least, 1e-6))),
        math.ceil(math.log10(max(most, 1e-6))),
    )
    digits = (1, 2, 5) if last - first <= 3 else (1,)
    values = [n * 10.0**power for power in range(first, last + 1) for n in digits]
    return {"tickvals": values, "ticktext": [f"{value:,g}" for value in values]}


def _bands(figure: go.Figure, phases: Sequence[Phase]) -> None:
    for place, phase in enumerate(phases):
        figure.add_vrect(
            x0=phase.from_s,
            x1=phase.to_s,
            fillcolor=BAND_COLOUR if place % 2 else "rgba(0,0,0,0)",
            line_width=0,
            layer="below",
            annotation={
                "text": phase.name,
                "x": phase.from_s,
                "xanchor": "left",
                "xref": "x",
                "y": 1,
                "yref": "paper",
                "yanchor": "bottom",
                "showarrow": False,
            },
        )


def _plain(figure: go.Figure) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(figure.to_json())
    found["layout"].pop("template", None)  # several kB that the theme replaces
    return found
