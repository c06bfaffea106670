"""What all charts share: lines, axes, bands; colours are named by token."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
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


def series(
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


def calm(*, height: int, x_title: str, y_title: str) -> dict[str, Any]:
    """What all charts have in common."""
    clear = "rgba(0,0,0,0)"
    return {
        "margin": {"l": 64, "r": 16, "t": 56, "b": 44},
        "height": height,
        "hovermode": "x unified",
        "showlegend": True,
        "legend": {
            "orientation": "h",
            "x": 1,
            "xanchor": "right",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
        },
        "xaxis": {"title": {"text": x_title}, "zeroline": False},
        "yaxis": {
            "title": {"text": y_title},
            "rangemode": "tozero",
            "tickformat": ",d",
            "automargin": True,
        },
        "paper_bgcolor": clear,
        "plot_bgcolor": clear,
    }


def log_ticks(least: float, most: float) -> dict[str, Any]:
    """1, 2 and 5 of each decade (or only 1) as plain numbers."""
    first, last = (
        math.floor(math.log10(max(least, 1e-6))),
        math.ceil(math.log10(max(most, 1e-6))),
    )
    digits = (1, 2, 5) if last - first <= 3 else (1,)
    values = [n * 10.0**power for power in range(first, last + 1) for n in digits]
    return {"tickvals": values, "ticktext": [f"{value:,g}" for value in values]}


def level(y: float, text: str, *, right: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """A line over the whole width, and its name above one end of it."""
    line = {"type": "line", "xref": "x domain", "x0": 0, "x1": 1, "y0": y, "y1": y}
    side = {"x": 1, "xanchor": "right"} if right else {"x": 0, "xanchor": "left"}
    name = {"text": text, "xref": "x domain", "y": y, "yanchor": "bottom", **side}
    return line | {"name": "target", "line": {"width": 1}}, name | {"showarrow": False}


def bands(phases: Sequence[Phase]) -> list[dict[str, Any]]:
    return [
        {
            "type": "rect",
            "x0": phase.from_s,
            "x1": phase.to_s,
            "yref": "y domain",
            "y0": 0,
            "y1": 1,
            "fillcolor": BAND_COLOUR,
            "line": {"width": 0},
            "layer": "below",
        }
        for phase in phases[1::2]
    ]


def band_names(phases: Sequence[Phase]) -> list[dict[str, Any]]:
    return [
        {
            "text": phase.name,
            "name": "phase",
            "x": phase.from_s,
            "xanchor": "left",
            "xref": "x",
            "y": 1,
            "yref": "paper",
            "yanchor": "bottom",
            "showarrow": False,
        }
        for phase in phases
    ]


def figure_of(
    traces: Sequence[go.Scatter], *layout: Mapping[str, Any]
) -> dict[str, Any]:
    """As plain JSON; of the layouts the later adds to the earlier.

    Laid out at once: each update_layout costs some 20 ms.
    """
    figure = go.Figure(list(traces), layout=_merged(layout))
    found: dict[str, Any] = json.loads(figure.to_json())
    found["layout"].pop("template", None)  # several kB that the theme replaces
    return found


def _merged(layouts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for layout in layouts:
        for name, value in layout.items():
            known = found.get(name)
            if isinstance(known, dict) and isinstance(value, dict):
                found[name] = {**known, **value}
            else:
                found[name] = value
    return found
