"""Which Sandboxes: a query string as a frozen value and back, and as a sentence.

Pure. The query string is the only state of the explorer; parsing what `query()` gives
yields the same filter again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import urlencode

OUTCOMES = (
    "success",
    "partial",
    "readiness_failed",
    "failed",
    "unobserved",
    "not_attempted",
    "pending",
)
CAUSES = (
    "timeout",
    "rate_limited",
    "quota",
    "capacity",
    "auth",
    "invalid_request",
    "provider_error",
    "network",
    "not_found",
    "command_failed",
    "harness",
)
ORIGINS = ("provider", "network", "harness")
MEASURES = {
    "create": "create",
    "ready": "readiness",
    "tti": "TTI",
    "probe": "slowest probe",
    "destroy": "destroy",
    "delay": "harness delay",
}
CURVES = {
    "proven": "proven alive",
    "possible": "possibly alive",
    "implied": "counted by a burst test as started",
}
SORTS = ("sandbox", "sent", *MEASURES)
TEXT_MAX = 200
MS_MAX = 1e10
INDEX_MAX = 10**9
CURSOR_MAX = 60


@dataclass(frozen=True, slots=True)
class SandboxFilter:
    """Every field is a condition; an empty one is none. Times in ms.

    of, least_ms, most_ms: a latency in [least_ms, most_ms].
    alive, at_ms: counted by that curve at T0 + at_ms.
    died_ms: certainly dead first in the half-open (from, to] since T0.
    rank: 0-based places in order of submission, both included.
    """

    outcome: str = ""
    cause: str = ""
    origin: str = ""
    shard: int | None = None
    of: str = ""
    least_ms: float | None = None
    most_ms: float | None = None
    alive: str = ""
    at_ms: float | None = None
    died_ms: tuple[float, float] | None = None
    rank: tuple[int, int] | None = None
    suspended: bool = False
    q: str = ""
    sort: str = ""

    @property
    def sort_key(self) -> str:
        return self.sort.removeprefix("-") or "sandbox"

    @property
    def descending(self) -> bool:
        return self.sort.startswith("-")

    def query(self) -> str:
        """The query string of this filter, without a question mark."""
        return urlencode(self.parts())

    def parts(self) -> dict[str, str]:
        """Its parameters, those that say nothing left out."""
        found: dict[str, str] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None or value == "" or value is False:
                continue
            found[field.name] = _text(value)
        return found

    def but(self, **changes: Any) -> SandboxFilter:
        return replace(self, **changes)


def parse(given: Mapping[str, str]) -> SandboxFilter:
    """A filter from a query string; ValueError, in words, where a value cannot be."""
    chosen = SandboxFilter(
        outcome=_one_of(given, "outcome", OUTCOMES),
        cause=_one_of(given, "cause", CAUSES),
        origin=_one_of(given, "origin", ORIGINS),
        shard=_whole(given, "shard"),
        of=_one_of(given, "of", tuple(MEASURES)),
        least_ms=_number(given, "least_ms"),
        most_ms=_number(given, "most_ms"),
        alive=_one_of(given, "alive", tuple(CURVES)),
        at_ms=_number(given, "at_ms"),
        died_ms=_died(given),
        rank=_rank(given),
        suspended=_one_of(given, "suspended", ("True", "1")) != "",
        q=given.get("q", "").strip()[:TEXT_MAX],
        sort=_one_of(given, "sort", (*SORTS, *(f"-{name}" for name in SORTS))),
    )
    if (chosen.least_ms is not None or chosen.most_ms is not None) and not chosen.of:
        raise ValueError(f"of says which latency: one of {', '.join(MEASURES)}")
    if (chosen.alive == "") != (chosen.at_ms is None):
        raise ValueError("alive and at_ms go together")
    return chosen


def sentence(chosen: SandboxFilter) -> str:
    """The conditions in words, to stand after a count: "that failed, …"."""
    said = [part for part in _said(chosen) if part]
    return ", ".join(said)


def conditions(chosen: SandboxFilter) -> list[tuple[str, SandboxFilter]]:
    """Each condition in words, and the filter without it."""
    found = []
    for group in _GROUPS:
        alone = SandboxFilter(**{name: getattr(chosen, name) for name in group})
        said = sentence(alone)
        if said:
            empty = {name: getattr(SandboxFilter(), name) for name in group}
            found.append((said, chosen.but(**empty)))
    return found


_GROUPS = (
    ("outcome",),
    ("cause",),
    ("origin",),
    ("shard",),
    ("of", "least_ms", "most_ms"),
    ("alive", "at_ms"),
    ("died_ms",),
    ("rank",),
    ("suspended",),
    ("q",),
)
_OUTCOME_SAID = {
    "success": "that succeeded",
    "partial": "that died before the teardown",
    "readiness_failed": "that never became interactive",
    "failed": "whose create failed",
    "unobserved": "that the harness lost sight of",
    "not_attempted": "whose create was never sent",
    "pending": "that are still open",
}


def _said(chosen: SandboxFilter) -> list[str]:
    return [
        _OUTCOME_SAID.get(chosen.outcome, ""),
        f"by cause {chosen.cause.replace('_', ' ')}" if chosen.cause else "",
        f"seen at the {chosen.origin}" if chosen.origin else "",
        f"of Shard {chosen.shard:,}" if chosen.shard is not None else "",
        _latency_said(chosen),
        f"{CURVES[chosen.alive]} {_s(chosen.at_ms)} after T0" if chosen.alive else "",
        f"certainly dead between {_s(chosen.died_ms[0])} and {_s(chosen.died_ms[1])}"
        if chosen.died_ms
        else "",
        f"submitted as number {chosen.rank[0] + 1:,} to {chosen.rank[1] + 1:,}"
        if chosen.rank
        else "",
        "suspended between probes" if chosen.suspended else "",
        f"with “{chosen.q}” in message or id" if chosen.q else "",
    ]


def _latency_said(chosen: SandboxFilter) -> str:
    if not chosen.of:
        return ""
    name = MEASURES[chosen.of]
    least, most = chosen.least_ms, chosen.most_ms
    if least is None and most is None:
        return f"with {name} known"
    if most is None:
        return f"with {name} at least {_ms(least)}"
    if least is None:
        return f"with {name} at most {_ms(most)}"
    return f"with {name} from {_ms(least)} to {_ms(most)}"


def _ms(value: float | None) -> str:
    return f"{value:,.6g} ms"


def _s(value: float | None) -> str:
    assert value is not None
    return f"{value / 1_000:,.6g} s"


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return "-".join(_text(part) for part in value)
    if isinstance(value, bool):
        return "1"
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return str(value)


def _one_of(given: Mapping[str, str], name: str, known: tuple[str, ...]) -> str:
    value = given.get(name, "")
    if value and value not in known:
        raise ValueError(f"{name} is one of {', '.join(known)}")
    return value


def _whole(given: Mapping[str, str], name: str) -> int | None:
    value = given.get(name, "").strip()
    if not value:
        return None
    if not (value.isascii() and value.isdigit() and int(value) <= INDEX_MAX):
        raise ValueError(f"{name} is a whole number from 0 to {INDEX_MAX:,}")
    return int(value)


def _number(given: Mapping[str, str], name: str) -> float | None:
    value = given.get(name, "").strip()
    return _as_number(value, name) if value else None


def _as_number(text: str, name: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not 0 <= number <= MS_MAX:
        raise ValueError(f"{name} is a number of ms, not negative")
    return round(number, 3)


def _died(given: Mapping[str, str]) -> tuple[float, float] | None:
    value = given.get("died_ms", "")
    if not value:
        return None
    first, dash, last = value.partition("-")
    if not dash:
        raise ValueError("died_ms is two numbers of ms: from-to")
    return _as_number(first, "died_ms"), _as_number(last, "died_ms")


def _rank(given: Mapping[str, str]) -> tuple[int, int] | None:
    value = given.get("rank", "")
    if not value:
        return None
    parts = [_whole({"rank": part}, "rank") for part in value.split("-")]
    if len(parts) != 2 or parts[0] is None or parts[1] is None:
        raise ValueError("rank is two whole numbers: first-last")
    return parts[0], parts[1]
