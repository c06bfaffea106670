"""The curve of a Run, its deaths, and the curves of several on one chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from runs.charts.parts import Phase, band_names, bands, calm, figure_of, level, series
from runs.labels import Label, direct_labels

HEADROOM = 1.1  # of what is drawn: room for the target's name above its line


@dataclass(frozen=True, slots=True)
class Stair:
    """A step of a staircase: so many are planned from then on; Held where known.

    s since T0; held_s is the middle of the time for which it was held.
    """

    from_s: float
    planned: int
    held: int | None = None
    held_s: float | None = None


def curve_figure(
    points: Sequence[Mapping[str, int]],
    *,
    rows: str,
    target: int,
    phases: Sequence[Phase],
    clock_bound_us: int | None,
    stairs: Sequence[Stair] = (),
    live_s: float | None = None,
    verdict: str = "",
) -> dict[str, Any]:
    """Proven (line), possible (band above it), implied (thin dashes), target (line).

    points: rows of elapsed_ms, proven, possible, implied, each exact at its instant.
    rows: the address of the explorer; a click leads to the Sandboxes of a point.
    live_s: now, in s since T0, of a Run that is not over; the page goes on to it with
    what agents tell.
    verdict: the word that a picture of a doubtful Run carries wherever it is taken.
    """
    x = [point["elapsed_ms"] / 1_000 for point in points]
    names = ("implied", "possible", "proven")
    top = HEADROOM * max(target, *(p[name] for p in points for name in names))
    traces = [
        series("implied", x, [p["implied"] for p in points], dash="dot", width=1),
        series("possible", x, [p["possible"] for p in points], width=0.5),
        series("proven", x, [p["proven"] for p in points], width=2.5, fill=True),
    ]
    for trace in traces:
        trace.customdata = [f"{p['elapsed_ms']}" for p in points]
        trace.meta = {
            "token": trace.name,
            "click": f"{rows}?alive={trace.name}&at_ms=",
        }
    labels = direct_labels(points, top)
    if stairs:  # what each step held stands where the name of proven would
        labels = [label for label in labels if label.name != "proven"]
    named = {label.name for label in labels}
    for trace in traces:  # what is not named directly is in the legend
        trace.showlegend = trace.name not in named
    line, name = level(target, f"target {target:,}", right=True)
    bound = "" if clock_bound_us is None else f", ± {clock_bound_us / 1_000:.3g} ms"
    live = live_s is not None
    upto = "; solid: confirmed by probes" if live else ""
    told = [_told(x[-1], points[-1]["proven"])] if live else []
    doubt = f" · {verdict}: our own rig may have had a part in it" if verdict else ""
    x_title = f"s since T0{bound}{upto}{doubt}"
    figure = figure_of(
        [*traces, *told, *_stairs(stairs, x[-1])],
        calm(height=380, x_title=x_title, y_title="sandboxes"),
        {
            "shapes": [line, *bands(phases)],
            "annotations": [name, *band_names(phases), *_line_names(labels)],
            "margin": {"t": 76 if stairs else 44},
            "xaxis": {"range": [0, max(x[-1], live_s or 0.0)]},
            "yaxis": {"range": [0, top]},
        },
    )
    return _with_room(figure, labels)


def _told(from_s: float, proven: int) -> go.Scatter:
    """Where the line begins that the page itself draws on, poll by poll."""
    line = series("told by agents", [from_s], [proven], width=1.5, dash="dash")
    line.line.shape = "linear"
    line.meta = {"token": "proven", "told": True}
    return line


def _with_room(figure: dict[str, Any], labels: Sequence[Label]) -> dict[str, Any]:
    """How much time each name has to itself: the page knows how wide that is."""
    rooms = {label.name: label.room_s for label in labels}
    for label in figure["layout"]["annotations"]:
        if label.get("name") == "line":
            label["room_s"] = rooms[label["text"]]
    return figure


def _line_names(labels: Sequence[Label]) -> list[dict[str, Any]]:
    return [
        {
            "text": label.name,
            "name": "line",
            "x": label.x_s,
            "y": label.y,
            "xanchor": label.xanchor,
            "yanchor": label.yanchor,
            "yshift": -4 if label.yanchor == "top" else 0,
            "showarrow": False,
        }
        for label in labels
    ]


def _stairs(stairs: Sequence[Stair], end_s: float) -> list[go.Scatter]:
    """The planned staircase, and what was held at each step of it."""
    if not stairs:
        return []
    x = [*(stair.from_s for stair in stairs), max(end_s, stairs[-1].from_s)]
    planned = [*(stair.planned for stair in stairs), stairs[-1].planned]
    line = series("planned", x, planned, width=1, dash="dash")
    line.meta = {"token": "target"}
    held = [stair for stair in stairs if stair.held is not None]
    marks = go.Scatter(
        x=[stair.held_s for stair in held],
        y=[stair.held for stair in held],
        text=[f"{stair.held:,}" for stair in held],
        textposition="bottom center",
        name="held",
        mode="markers+text",
        marker={"size": 7, "symbol": "diamond"},
        cliponaxis=False,
        meta={"token": "ink"},
        hovertemplate="%{y:,}<extra>held at this step</extra>",
    )
    return [line, marks] if held else [line]


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
    traces = [
        series("possibly dead", x, values["possible"], width=0.5),
        series("dead", x, values["certain"], width=2, fill=True),
    ]
    for trace in traces:  # a click shows who died since the point before
        trace.customdata = ["0-0"] + [
            f"{before * 1_000:.0f}-{at * 1_000:.0f}"
            for before, at in zip(x, x[1:], strict=False)
        ]
        trace.meta = {"token": "failed", "click": f"{rows}?died_ms="}
    return figure_of(
        traces,
        calm(height=200, x_title="s since T0", y_title="deaths"),
        {"shapes": bands(phases), "annotations": band_names(phases)},
    )


def compare_figure(
    curves: Sequence[tuple[str, Sequence[Mapping[str, int]], int]],
) -> dict[str, Any]:
    """Proven curves in % of each Run's own target; (name, points, target) of each.

    A name begins with the letter of its Run, which also chooses its colour.
    """
    dashes = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
    traces = []
    for (name, points, target), dash in zip(curves, dashes, strict=False):
        trace = series(
            name,
            [point["elapsed_ms"] / 1_000 for point in points],
            [100 * point["proven"] / target for point in points],
            width=2,
            dash=dash,
        )
        trace.meta = {"token": f"series-{name[0].lower()}"}
        trace.hovertemplate = "%{y:.2f} %<extra>" + name + "</extra>"
        traces.append(trace)
    return figure_of(
        traces,
        calm(height=380, x_title="s since T0", y_title="% of the target"),
        {"yaxis": {"tickformat": None}},
    )
