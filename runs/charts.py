"""Charts as plotly figures; colours are named by token and set by the page's theme."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from runs.labels import Label, direct_labels

BAND_COLOUR = "rgba(128,128,128,0.06)"
HEADROOM = 1.1  # of what is drawn: room for the target's name above its line


@dataclass(frozen=True, slots=True)
class Phase:
    """A faint vertical band of a chart; s since T0."""

    name: str
    from_s: float
    to_s: float


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
    live: bool = False,
    verdict: str = "",
) -> dict[str, Any]:
    """Proven (line), possible (band above it), implied (thin dashes), target (line).

    points: rows of elapsed_ms, proven, possible, implied, each exact at its instant.
    rows: the address of the explorer; a click leads to the Sandboxes of a point.
    verdict: the word that a picture of a doubtful Run carries wherever it is taken.
    """
    x = [point["elapsed_ms"] / 1_000 for point in points]
    names = ("implied", "possible", "proven")
    top = HEADROOM * max(target, *(p[name] for p in points for name in names))
    traces = [
        _line("implied", x, [p["implied"] for p in points], dash="dot", width=1),
        _line("possible", x, [p["possible"] for p in points], width=0.5),
        _line("proven", x, [p["proven"] for p in points], width=2.5, fill=True),
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
    line, name = _level(target, f"target {target:,}", right=True)
    bound = "" if clock_bound_us is None else f", ± {clock_bound_us / 1_000:.3g} ms"
    upto = ", as far as probes have confirmed" if live else ""
    doubt = f" · {verdict}: our own rig may have had a part in it" if verdict else ""
    x_title = f"s since T0{bound}{upto}{doubt}"
    figure = _figure(
        [*traces, *_stairs(stairs, x[-1])],
        _calm(height=380, x_title=x_title, y_title="sandboxes"),
        {
            "shapes": [line, *_bands(phases)],
            "annotations": [name, *_band_names(phases), *_line_names(labels)],
            "margin": {"t": 76 if stairs else 44},
            "xaxis": {"range": [0, x[-1]]},
            "yaxis": {"range": [0, top]},
        },
    )
    return _with_room(figure, labels)


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
    line = _line("planned", x, planned, width=1, dash="dash")
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
        _line("possibly dead", x, values["possible"], width=0.5),
        _line("dead", x, values["certain"], width=2, fill=True),
    ]
    for trace in traces:  # a click shows who died since the point before
        trace.customdata = ["0-0"] + [
            f"{before * 1_000:.0f}-{at * 1_000:.0f}"
            for before, at in zip(x, x[1:], strict=False)
        ]
        trace.meta = {"token": "failed", "click": f"{rows}?died_ms="}
    return _figure(
        traces,
        _calm(height=200, x_title="s since T0", y_title="deaths"),
        {"shapes": _bands(phases), "annotations": _band_names(phases)},
    )


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
    known = {name: value / 1_000 for name, value in marks.items() if value is not None}
    return _figure(
        [trace],
        _calm(height=300, x_title="ms, log scale", y_title="sandboxes"),
        {
            "shapes": [_mark_line(at) for at in known.values()],
            "annotations": [_mark_name(name, at) for name, at in known.items()],
            "showlegend": False,
            "margin": {"t": 48},
            "xaxis": {"type": "log", **_log_ticks(x[0], x[-1])},
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
    ticks = _log_ticks(min(known, default=1.0), max(known, default=1.0))
    return _figure(
        traces,
        _calm(height=300, x_title="place in order of submission", y_title="ms"),
        {
            "margin": {"t": 48},
            "xaxis": {"tickformat": ",d", "rangemode": "normal"},
            "yaxis": {"type": "log", "rangemode": "normal", "tickformat": None} | ticks,
        },
    )


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
        line, name = _level(suspect_ms, said, right=False)
        limit = {"shapes": [line], "annotations": [name]}
    return _figure(
        traces,
        _calm(height=260, x_title="Shard", y_title="ms"),
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
        _line(name, x, [row[key] for row in rows], width=2, shape="linear")
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
    return _figure(
        traces,
        _calm(height=320, x_title="sandboxes a Shard", y_title="ms or %"),
        {"xaxis": {"type": "log", "tickvals": x}},
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
        trace = _line(
            name,
            [point["elapsed_ms"] / 1_000 for point in points],
            [100 * point["proven"] / target for point in points],
            width=2,
            dash=dash,
        )
        trace.meta = {"token": f"series-{name[0].lower()}"}
        trace.hovertemplate = "%{y:.2f} %<extra>" + name + "</extra>"
        traces.append(trace)
    return _figure(
        traces,
        _calm(height=380, x_title="s since T0", y_title="% of the target"),
        {"yaxis": {"tickformat": None}},
    )


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


def _calm(*, height: int, x_title: str, y_title: str) -> dict[str, Any]:
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


def _log_ticks(least: float, most: float) -> dict[str, Any]:
    """1, 2 and 5 of each decade (or only 1) as plain numbers."""
    first, last = (
        math.floor(math.log10(max(least, 1e-6))),
        math.ceil(math.log10(max(most, 1e-6))),
    )
    digits = (1, 2, 5) if last - first <= 3 else (1,)
    values = [n * 10.0**power for power in range(first, last + 1) for n in digits]
    return {"tickvals": values, "ticktext": [f"{value:,g}" for value in values]}


# plotly's add_hline and add_vrect do the same at many times the cost.
def _level(
    y: float, text: str, *, right: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A line over the whole width, and its name above one end of it."""
    line = {"type": "line", "xref": "x domain", "x0": 0, "x1": 1, "y0": y, "y1": y}
    side = {"x": 1, "xanchor": "right"} if right else {"x": 0, "xanchor": "left"}
    name = {"text": text, "xref": "x domain", "y": y, "yanchor": "bottom", **side}
    return line | {"name": "target", "line": {"width": 1}}, name | {"showarrow": False}


def _bands(phases: Sequence[Phase]) -> list[dict[str, Any]]:
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


def _band_names(phases: Sequence[Phase]) -> list[dict[str, Any]]:
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


def _figure(traces: Sequence[go.Scatter], *layout: Mapping[str, Any]) -> dict[str, Any]:
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
