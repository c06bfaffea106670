"""What an operator does to Runs from the command line; each answers plain JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runs import rebuild
from runs.errors import RecordError


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


BY_NAME: dict[str, Callable[[str], Any]] = {
    "codes": codes,
    "rebuild": rebuild_run,
    "verify": verify_run,
}
