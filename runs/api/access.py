"""Who sees which Runs through the API."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from ninja.errors import HttpError

from runs.models import Run, State


def visible_runs(request: HttpRequest) -> QuerySet[Run]:
    """All to an operator; to others, those that are sealed and published."""
    if is_operator(request):
        return Run.objects.all()
    return Run.objects.filter(state=State.SEALED, published_at__isnull=False)


def is_operator(request: Any) -> bool:
    who = getattr(request, "auth", None)
    if who is None or who == "anyone":
        who = getattr(request, "user", None)
    return bool(who is not None and getattr(who, "is_authenticated", False))


def run_or_404(request: HttpRequest, code: str) -> Run:
    run = visible_runs(request).filter(code=code).first()
    if run is None:
        raise HttpError(404, f"no Run {code!r} here")
    return run


def record_or_404(request: HttpRequest, code: str) -> Run:
    """A Run whose hosts, logs and raw segments may be read."""
    run = run_or_404(request, code)
    if not (is_operator(request) or run.logs_published):
        raise HttpError(404, f"the logs and raw segments of {code} are not published")
    return run
