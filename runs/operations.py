"""What an operator does to Runs from the command line; each answers plain JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from runs import reaper, rebuild
from runs.errors import RecordError
from runs.models import Run


def rebuild_run(code: str) -> dict[str, Any]:
    """Rebuild one Run; an unreadable one is an error in the answer, not a failure."""
    try:
        run = rebuild.rebuild(code)
    except RecordError as error:
        return {"code": code, "rebuilt": False, "error": str(error)}
    summary = run.summary or {}
    return {
        "code": code,
        "rebuilt": True,
        "outcomes": summary.get("outcomes"),
        "held": summary.get("held"),
        "verdict": (summary.get("verdict") or {}).get("level"),
        "published": run.published_at is not None,
    }


def codes(_: str) -> list[str]:
    """Every Run that the bucket holds."""
    return sorted(rebuild.codes())


def verify_run(code: str) -> dict[str, Any]:
    differences = rebuild.verify(code)
    return {"code": code, "differences": differences}


def reap(code: str) -> dict[str, Any]:
    """Destroy what is left of a Run that is over at its Provider."""
    run = _run(code)
    machines = reaper.end_machines(run)
    return {"code": code, "machines": machines} | asdict(reaper.look(run, destroy=True))


def list_leaks(code: str) -> dict[str, Any]:
    return {"code": code, **asdict(reaper.look(_run(code), destroy=False))}


def _run(code: str) -> Run:
    run = Run.objects.filter(code=code).first()
    if run is None:
        raise RecordError(f"no Run has the code {code}")
    return run


BY_NAME: dict[str, Callable[[str], Any]] = {
    "codes": codes,
    "list_leaks": list_leaks,
    "reap": reap,
    "rebuild": rebuild_run,
    "verify": verify_run,
}
