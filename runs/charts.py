"""Charts as plotly figures; colours are named by token and set by the page's theme."""

from __future__ import annotations

import json
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
    target: int,
    phases: Sequence[Phase],
    clock_bound_us: int | None,
    live: bool = False,
) -> dict[str, Any]:
    """Proven (line), possible (band above it), implied (thin dashes), target (line).

    points: rows of elapsed_ms, proven, possible, implied, each exact at its instant.
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
    _bands(figure, phases)
    upto = ", as far as probes have confirmed" if live else ""
    x_title = f"s since T0{bound}{upto}"
    _calm(figure, height=380, x_title=x_title, y_title="sandboxes")
    return _plain(figure)


def deaths_figure(
    points: Sequence[Mapping[str, int]], *, end_s: float, phases: Sequence[Phase]
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
    _bands(figure, phases)
    _calm(figure, height=200, x_title="s since T0", y_title="deaths")
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
