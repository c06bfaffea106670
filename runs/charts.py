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
        annotation_position="top left",
        name="target",
    )
    _bands(figure, phases)
    figure.update_layout(
        margin={"l": 56, "r": 16, "t": 28, "b": 44},
        height=380,
        hovermode="x unified",
        showlegend=True,
        legend={"orientation": "h", "y": 1.08, "x": 1, "xanchor": "right"},
        xaxis={"title": {"text": f"s since T0{bound}"}, "zeroline": False},
        yaxis={"title": {"text": "sandboxes"}, "rangemode": "tozero"},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
    return _plain(figure)


def lines_figure(
    series: Mapping[str, tuple[Sequence[float], Sequence[float | None]]],
    *,
    unit: str,
    height: int = 160,
) -> dict[str, Any]:
    """Small multiples: name → (s since T0, values)."""
    figure = go.Figure(
        [
            _line(name, list(x), list(y), width=1.5, shape="linear")
            for name, (x, y) in series.items()
        ]
    )
    figure.update_layout(
        margin={"l": 56, "r": 16, "t": 8, "b": 32},
        height=height,
        hovermode="x unified",
        showlegend=len(series) > 1,
        xaxis={"title": {"text": "s since T0"}, "zeroline": False},
        yaxis={"title": {"text": unit}, "rangemode": "tozero"},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
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
    """meta.token names the colour, which the page sets; hv: held until the next."""
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


def _bands(figure: go.Figure, phases: Sequence[Phase]) -> None:
    for place, phase in enumerate(phases):
        figure.add_vrect(
            x0=phase.from_s,
            x1=phase.to_s,
            fillcolor=BAND_COLOUR if place % 2 else "rgba(0,0,0,0)",
            line_width=0,
            layer="below",
            annotation_text=phase.name,
            annotation_position="top left",
        )


def _plain(figure: go.Figure) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(figure.to_json())
    found["layout"].pop("template", None)  # several kB that the theme replaces
    return found
