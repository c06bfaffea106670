"""Hold drills one after another and say what each cost."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.embedded import Site, quick_plan
from tests.faults.drills import SANDBOXES, Drill, Skip
from tests.faults.ground import ENVIRONMENT, Ground, differences

OUTCOMES = (
    "success",
    "partial",
    "readiness_failed",
    "failed",
    "unobserved",
    "not_attempted",
)


@dataclass(frozen=True, slots=True)
class Result:
    """What one drill in one phase came to; `wrong` is empty where all is well."""

    drill: str
    means: str
    phase: str
    seconds_lost: float = 0.0
    events_lost: int = 0
    outcomes: str = ""
    leaked: int = 0
    alive_after: int = 0
    verdict: str = ""
    took_s: float = 0.0
    skipped: str = ""
    wrong: tuple[str, ...] = ()


def hold(drill: Drill, phases: Sequence[str]) -> Iterator[Result]:
    """A site of its own for each drill; a Run for each phase."""
    try:
        with _site(drill) as site:
            for phase in phases:
                yield hold_at(drill, phase, site)
    except Skip as reason:
        for phase in phases:
            yield Result(drill.name, drill.means, phase, skipped=str(reason))


@contextmanager
def _site(drill: Drill) -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="holdfast-drill-") as scratch:
        data = Path(scratch)
        more = drill.environment(data) if drill.environment else {}
        site = Site(data, **ENVIRONMENT, **more)
        site.start()
        try:
            yield site
        finally:
            site.stop()
            if os.path.ismount(data / "agents"):
                subprocess.run(["umount", "-l", str(data / "agents")], check=True)


def hold_at(drill: Drill, phase: str, site: Site) -> Result:
    """One Run with one fault."""
    began = time.monotonic()
    ground = Ground(site, dict(drill.plan))
    try:
        if drill.name == "abort" and phase in ("draft", "queued"):
            _begin_waiting(ground, phase)
        else:
            ground.launch()
        drill.strike(ground, phase)
        run = ground.until_sealed()
    finally:
        for undo in ground.undo:
            undo()
        _restore(site)
    found = differences(site, ground.code)
    loss = ground.record.loss(ground.fault_us)
    counts = run["outcomes"]
    shown = ", ".join(f"{counts[name]} {name}" for name in OUTCOMES if counts[name])
    return Result(
        drill.name,
        drill.means,
        phase,
        loss.seconds,
        loss.events,
        shown,
        (run["reaped"] or {}).get("listed", 0),
        ground.alive_after(),
        _verdict(run["verdict"]),
        round(time.monotonic() - began, 1),
        wrong=tuple(_wrong(drill, phase, run, ground, found)),
    )


def _begin_waiting(ground: Ground, phase: str) -> None:
    """A draft, or a Run that is queued behind another."""
    site = ground.site
    if phase == "draft":
        ground.code = site.post("/runs", quick_plan(**ground.plan))["code"]
        return
    ground.launch()
    first = ground.code
    ground.launch()
    ground.undo.append(lambda: site.post(f"/runs/{first}/abort"))
    ground.undo.append(lambda: site.until_state(first, "sealed"))


def _verdict(found: Any) -> str:
    """The level, and which checks it is by."""
    level = str(found["level"])
    checks = [r["check"] for r in found["reasons"] if r["level"] == level]
    return f"{level} ({', '.join(checks)})" if checks else level


def _restore(site: Site) -> None:
    step = site.data / "wall_step"
    if step.exists():
        step.write_text("0\n")
    (site.data / "agents" / "filler").unlink(missing_ok=True)


def _wrong(
    drill: Drill, phase: str, run: Any, ground: Ground, found: list[str]
) -> Iterator[str]:
    counts = run["outcomes"]
    if sum(counts[name] for name in OUTCOMES) != counts["total"] or counts.get(
        "pending"
    ):
        yield f"the counts do not close: {counts}"
    if counts["total"] != SANDBOXES:
        yield f"{counts['total']} Sandboxes of {SANDBOXES}"
    aborted = phase in drill.aborted
    ends = {"aborted"} if aborted else {"completed"}
    if run["end_reason"] not in ends | ({"failed"} if phase in drill.fails else set()):
        yield f"ended {run['end_reason']} ({run['end_detail']})"
    for name, allowed in (
        ("unobserved", drill.unobserved),
        ("not_attempted", drill.not_attempted),
    ):
        if counts[name] > allowed.get(phase, 0):
            yield f"{counts[name]} {name}, at most {allowed.get(phase, 0)} were due"
    blamed = counts["failed"] + counts["readiness_failed"] + counts["partial"]
    if blamed:  # the world of a drill does nothing wrong
        yield f"{blamed} Sandboxes are blamed on the Provider"
    if not aborted:
        due = SANDBOXES - drill.unobserved.get(phase, 0)
        if counts["success"] < due:
            yield f"{counts['success']} success of at least {due}"
    if alive := ground.alive_after():
        yield f"{alive} sandboxes alive after the reaper"
    if twice := ground.record.created_twice():
        yield f"{twice} sandboxes created twice"
    yield from (f"verify: {line}" for line in found[:3])
