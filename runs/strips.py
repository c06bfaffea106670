"""Lives of sandboxes and health of an agent, drawn on one time axis.

Pure: elapsed µs in, places on an axis of WIDTH units out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH = 1_000
HEIGHT = 36  # units of a health line
TICKS_MAX = 8
_NICE = (1, 2, 5)
REFUSED = ("rate_limited", "quota", "capacity", "auth", "invalid_request")
_INSTANTS = (
    *("sent_us", "created_us", "ready_us", "last_ok_us"),
    *("first_failed_us", "dead_us", "destroyed_us"),
)


@dataclass(frozen=True, slots=True)
class Axis:
    """From T0 (or what came before it) to the last instant shown; µs since T0."""

    from_us: int
    to_us: int

    def x(self, at_us: float) -> float:
        span = max(1, self.to_us - self.from_us)
        place = WIDTH * (at_us - self.from_us) / span
        return round(min(max(place, 0.0), float(WIDTH)), 2)

    def ticks(self) -> list[dict[str, Any]]:
        """At most TICKS_MAX round instants, as percentages from the left."""
        span_s = (self.to_us - self.from_us) / 1e6
        steps = (n * 10**power for power in range(9) for n in _NICE)
        step_s = next((s for s in steps if span_s / s <= TICKS_MAX), 10**9)
        found, at = [], 0.0
        while at * 1e6 <= self.to_us:
            left = f"{self.x(at * 1e6) / WIDTH * 100:.2f}%"
            found.append({"left": left, "text": f"{at:g}"})
            at += step_s
        return found


def axis_of(rows: Sequence[Mapping[str, Any]], health: Sequence[Any], end: int) -> Axis:
    """Wide enough for every row and for the Run's own end."""
    instants = [r[n] for r in rows for n in _INSTANTS if r[n] is not None]
    instants += [h["elapsed_us"] for h in health if h["elapsed_us"] is not None]
    return Axis(0, max([end, 1_000_000, *instants]))


def strip(row: Mapping[str, Any], axis: Axis) -> dict[str, Any]:
    """One sandbox's life as bars: asked, starting, alive, perhaps; and its marks."""
    sent, created, ready = row["sent_us"], row["created_us"], row["ready_us"]
    last = row["last_ok_us"]
    lost = row["first_failed_us"]
    gone = row["dead_us"] if row["dead_us"] is not None else row["destroyed_us"]
    bars = [
        _bar("asked", sent, _first(created, row["dead_us"], axis.to_us), axis),
        _bar("starting", created, _first(ready, gone, axis.to_us), axis),
        _bar("alive", ready, last, axis),
        _bar("perhaps", _first(last, ready), _first(lost, gone, axis.to_us), axis)
        if ready is not None
        else None,
    ]
    marks: list[dict[str, str]] = []
    if row["outcome"] == "failed" and row["cause"] in REFUSED and sent is not None:
        # Never alive, and when the refusal came is not among these instants.
        return {"bars": [], "marks": [_mark(sent, axis)]}
    if row["dead_us"] is not None:
        marks.append(_mark(row["dead_us"], axis))
    return {"bars": [bar for bar in bars if bar], "marks": marks}


def line(
    samples: Sequence[Mapping[str, Any]],
    name: str,
    axis: Axis,
    *,
    least_top: float,
    behind: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any] | None:
    """A health figure over time; None where no sample has it.

    behind: the same of others, on the same scale, as far as the axis goes.
    """
    known = _known(samples, name)
    others = [(at, value) for at, value in _known(behind, name) if at <= axis.to_us]
    if not known:
        return None
    top = max(least_top, *(value for _, value in (*known, *others)))
    return {
        "points": _points(known, axis, top),
        "behind": _area(others, axis, top),
        "behind_max": max((value for _, value in others), default=None),
        "max": max(value for _, value in known),
        "last": known[-1][1],
        "top": top,
        "height": HEIGHT,
    }


def _known(samples: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    return [
        (int(s["elapsed_us"]), float(s[name]))
        for s in samples
        if s["elapsed_us"] is not None and s[name] is not None
    ]


def _points(known: Sequence[tuple[int, float]], axis: Axis, top: float) -> str:
    places = [(axis.x(at), HEIGHT * (1 - value / top)) for at, value in known]
    return " ".join(f"{x:g},{y:.1f}" for x, y in places)


def _area(known: Sequence[tuple[int, float]], axis: Axis, top: float) -> str:
    """What lies between the line and the ground."""
    if not known:
        return ""
    first, last = axis.x(known[0][0]), axis.x(known[-1][0])
    return f"{first:g},{HEIGHT} {_points(known, axis, top)} {last:g},{HEIGHT}"


def _bar(
    name: str, begin: int | None, end: int | None, axis: Axis
) -> dict[str, Any] | None:
    if begin is None or end is None or end < begin:
        return None
    left, right = axis.x(begin), axis.x(end)
    width = max(right - left, 0.5)
    return {
        "name": name,
        "x": left,
        "width": round(width, 2),
        "left": f"{left / 10:.2f}%",
        "long": f"{width / 10:.2f}%",
    }


def _mark(at_us: int, axis: Axis) -> dict[str, str]:
    return {"left": f"{axis.x(at_us) / WIDTH * 100:.2f}%"}


def _first(*instants: int | None) -> int | None:
    return next((instant for instant in instants if instant is not None), None)
