"""Published or not: the bucket says so first, the database repeats it."""

from __future__ import annotations

import orjson
from django.utils import timezone

from runs import objects
from runs.errors import StateError
from runs.models import Run, State


def publish(run: Run, by: str) -> None:
    """StateError where the Run may not be shown as a result."""
    if run.state != State.SEALED or run.summary is None:
        raise StateError(
            f"Run {run.code} is {run.state}; only a sealed Run is a result"
        )
    if run.summary["verdict"]["level"] == "INVALID":
        raise StateError(
            f"Run {run.code} is INVALID: our own rig cannot be ruled out, "
            "so it cannot be published"
        )
    _write(run, published=True, by=by)


def unpublish(run: Run, by: str) -> None:
    if run.published_at is not None:
        _write(run, published=False, by=by)


def _write(run: Run, *, published: bool, by: str) -> None:
    at = timezone.now()
    body = {"published": published, "by": by, "at": at.isoformat()}
    objects.put(f"runs/{run.code}/publication.json", orjson.dumps(body))
    Run.objects.filter(pk=run.pk).update(
        published_at=at if published else None, published_by=by if published else ""
    )
    run.refresh_from_db()
