"""Charts as plotly figures; colours are named by token and set by the page's theme."""

from __future__ import annotations

from runs.charts.curve import Stair, compare_figure, curve_figure, deaths_figure
from runs.charts.parts import Phase
from runs.charts.rig import sizes_figure, start_figure
from runs.charts.spread import size_figure, submission_figure

__all__ = (
    "Phase",
    "Stair",
    "compare_figure",
    "curve_figure",
    "deaths_figure",
    "size_figure",
    "sizes_figure",
    "start_figure",
    "submission_figure",
)
