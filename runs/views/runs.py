"""The list of Runs."""

from __future__ import annotations

from hashlib import sha256

from django.conf import settings
from django.core.cache import cache
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from runs.api.shapes import run_json
from runs.headline import qualifiers
from runs.models import Run, State

PAGE = 25
WATCHER_KNOWN_S = 5.0


@require_GET
def runs(request: HttpRequest) -> HttpResponse:
    page = Paginator(visible_to(request), PAGE).get_page(request.GET.get("page"))
    shown = [(run, run_json(run)) for run in page.object_list]
    rows = [
        {"run": run, "json": one, "qualifiers": qualifiers(one)} for run, one in shown
    ]
    return render(request, "runs/runs.html", {"page": page, "rows": rows})


def visible_to(request: HttpRequest) -> QuerySet[Run]:
    """All to an operator; to others, those that are sealed and published."""
    return Run.objects.all() if request.user.is_authenticated else published()


def published() -> QuerySet[Run]:
    """What strangers see."""
    return Run.objects.filter(state=State.SEALED, published_at__isnull=False)


def operator_watches(request: HttpRequest) -> bool:
    """Whether an operator asks, for what a page asks for each second.

    Not looked up each time: who signs out is one here for up to WATCHER_KNOWN_S more.
    """
    session = request.COOKIES.get(settings.SESSION_COOKIE_NAME, "")
    key = f"watcher:{sha256(session.encode()).hexdigest()}"
    known = bool(session and cache.get(key))
    if session and not known and request.user.is_authenticated:
        known = True
        cache.set(key, known, WATCHER_KNOWN_S)
    return known


def logs_visible_to(request: HttpRequest) -> QuerySet[Run]:
    """Those whose logs may be read: all by an operator, others where published."""
    found = visible_to(request)
    if request.user.is_authenticated:
        return found
    return found.filter(logs_published=True)


def may_see_logs(request: HttpRequest, run: Run) -> bool:
    return request.user.is_authenticated or run.logs_published
