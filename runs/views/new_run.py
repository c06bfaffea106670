"""One page that sets a Run up; the query string fills it in."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods

from runs.forms import NewRunForm
from runs.launch import create_run, launch, warnings_for
from runs.plan import typical_duration_s

_FIRST = {"provider": "sim", "sandbox_count": "1000", "witness": True}


@login_required
@require_http_methods(["GET", "POST"])
def new_run(request: HttpRequest) -> HttpResponse:
    assert request.user.is_authenticated
    if request.method == "GET":
        initial = {**_FIRST, **request.GET.dict()}
        form = NewRunForm(initial=initial, user=request.user)
        return render(request, "runs/new_run.html", {"form": form})
    form = NewRunForm(request.POST, user=request.user)
    if not form.is_valid() or form.plan is None:
        return render(request, "runs/new_run.html", {"form": form}, status=422)
    run = create_run(form.plan, request.user, form.account)
    launch(run, request.user.get_username())
    for warning in warnings_for(form.plan):
        messages.warning(request, warning)
    return redirect("run", run.code)


@login_required
@require_GET
def estimate(request: HttpRequest) -> HttpResponse:
    """What this Plan would be: Shards, hosts, probes a second, duration."""
    assert request.user.is_authenticated
    form = NewRunForm(request.GET, user=request.user)
    plan = form.plan if form.is_valid() else None
    ctx: dict[str, object] = {"form": form, "plan": plan}
    if plan is not None:
        ctx |= {
            "hosts": -(-plan.shard_count // plan.fleet.shards_per_host),
            "probes_per_s": plan.sandbox_count / plan.probe_interval_s,
            "duration_s": typical_duration_s(plan),
            "warnings": warnings_for(plan),
        }
    return render(request, "runs/_estimate.html", ctx)
