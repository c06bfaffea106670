"""Where the lines of a curve can be named directly; what cannot goes to the legend.

Pure: points in, places in the units of the axes out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

GAP_LEAST = 0.12  # of the axis: a band thinner than a line of text holds no name
WIDE_LEAST = 0.08  # of the time shown: nor does a narrow one
NEAR = 0.06  # of the axis: lines closer than that would share their names' place


@dataclass(frozen=True, slots=True)
class Label:
    """A name at (x_s, y); it hangs there as its anchors say."""

    name: str
    x_s: float
    y: float
    xanchor: str
    yanchor: str
    room_s: float  # that it has on the axis of time


def direct_labels(points: Sequence[Mapping[str, int]], top: float) -> list[Label]:
    """Names of proven, possible and implied, where each has room of its own.

    top: of the axis of counts.
    """
    if len(points) < 2 or top <= 0:
        return []
    found = (_proven(points, top), _possible(points, top), _implied(points, top))
    return [label for label in found if label is not None]


def _proven(points: Sequence[Mapping[str, int]], top: float) -> Label | None:
    """Beneath the line, in the middle of where it is high."""
    high = max(point["proven"] for point in points)
    part = _longest([point["proven"] >= 0.9 * high for point in points])
    if high < 3 * GAP_LEAST * top or not _wide(part, points):
        return None
    middle = (part[0] + part[1]) // 2
    near = max(1, len(points) // 16)
    least = min(p["proven"] for p in points[max(0, middle - near) : middle + near])
    room = _x(points[part[1]]) - _x(points[part[0]])
    return Label("proven", _x(points[middle]), least, "center", "top", room)


def _possible(points: Sequence[Mapping[str, int]], top: float) -> Label | None:
    """In the band, where it is thickest."""
    gaps = [point["possible"] - point["proven"] for point in points]
    part = _longest([gap >= max(0.6 * max(gaps), GAP_LEAST * top) for gap in gaps])
    if not _wide(part, points):
        return None
    point = points[(part[0] + part[1]) // 2]
    y = (point["possible"] + point["proven"]) / 2
    room = _x(points[part[1]]) - _x(points[part[0]])
    return Label("possible", _x(point), y, "center", "middle", room)


def _implied(points: Sequence[Mapping[str, int]], top: float) -> Label | None:
    """Beneath its end, where the others have left it."""
    last = points[-1]
    others = (last["proven"], last["possible"])
    if any(abs(last["implied"] - other) < 2 * NEAR * top for other in others):
        return None
    if last["implied"] < 2 * NEAR * top:
        return None
    apart = [abs(p["implied"] - p["proven"]) >= NEAR * top for p in points]
    begin = next((at for at in range(len(points), 0, -1) if not apart[at - 1]), 0)
    room = _x(last) - _x(points[min(begin, len(points) - 1)])
    return Label("implied", _x(last), last["implied"], "right", "top", room)


def _longest(flags: Sequence[bool]) -> tuple[int, int]:
    """First and last place of the longest stretch of True; (0, 0) without any."""
    best, begin = (0, 0), 0
    for place, flag in enumerate(flags):
        if not flag:
            begin = place + 1
        elif place - begin > best[1] - best[0]:
            best = (begin, place)
    return best


def _wide(part: tuple[int, int], points: Sequence[Mapping[str, int]]) -> bool:
    return part[1] - part[0] >= WIDE_LEAST * len(points)


def _x(point: Mapping[str, int]) -> float:
    return point["elapsed_ms"] / 1_000
