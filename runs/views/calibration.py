"""How large a Shard may be on this machine, as last calibrated."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from runs import calibration as found
from runs import charts


@require_GET
def calibration(request: HttpRequest) -> HttpResponse:
    return render(
        request, "runs/calibration.html", {"calibration": found.stored(settings.DATA)}
    )


@require_GET
def calibration_chart(request: HttpRequest) -> HttpResponse:
    """The figure of the page's chart, or why there is none."""
    stored = found.stored(settings.DATA)
    if stored is None:
        return JsonResponse({"why": "This installation was not calibrated yet."})
    return JsonResponse(charts.sizes_figure(stored["rows"]))
