"""Published or not: the bucket says so first, the database repeats it."""

from __future__ import annotations

import orjson
from django.utils import timezone

from runs import objects
from runs.errors import StateError
from runs.models import Run, State


def publish(run: Run, by: str, *, logs: bool = False) -> None:
    """StateError where the Run may not be shown as a result.

    logs: hosts, egress addresses, logs and raw segments are shown, too.
    """
    if run.state != State.SEALED or run.summary is None:
        raise StateError(
            f"Run {run.code} is {run.state}; only a sealed Run is a result"
        )
    if run.summary["verdict"]["level"] == "INVALID":
        raise StateError(
            f"Run {run.code} is INVALID: our own rig cannot be ruled out, "
            "so it cannot be published"
        )
    _write(run, published=True, logs=logs, by=by)


def unpublish(run: Run, by: str) -> None:
    if run.published_at is not None:
        _write(run, published=False, logs=False, by=by)


def _write(run: Run, *, published: bool, logs: bool, by: str) -> None:
    at = timezone.now()
    body = {"published": published, "logs": logs, "by": by, "at": at.isoformat()}
    objects.put(f"runs/{run.code}/publication.json", orjson.dumps(body))
    Run.objects.filter(pk=run.pk).update(
        published_at=at if published else None,
        published_by=by if published else "",
        logs_published=logs,
    )
    run.refresh_from_db()
