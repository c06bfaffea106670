"""The list of Runs."""

from __future__ import annotations

from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from runs.api.shapes import run_json
from runs.headline import qualifiers
from runs.models import Run, State

PAGE = 25


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
    if request.user.is_authenticated:
        return Run.objects.all()
    return Run.objects.filter(state=State.SEALED, published_at__isnull=False)


def logs_visible_to(request: HttpRequest) -> QuerySet[Run]:
    """Those whose logs may be read: all by an operator, others where published."""
    found = visible_to(request)
    if request.user.is_authenticated:
        return found
    return found.filter(logs_published=True)


def may_see_logs(request: HttpRequest, run: Run) -> bool:
    return request.user.is_authenticated or run.logs_published
