"""One page that sets a Run up; the query string fills it in."""

from __future__ import annotations

import json
import shlex
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import (
    require_GET,
    require_http_methods,
    require_POST,
)

from runs import calibration, forecast, preflight
from runs.errors import PlanError, RunsError
from runs.fleets import usd_per_h
from runs.forms import NESTED, NUMBERS, NewRunForm
from runs.launch import create_run, launch, warnings_for
from runs.models import Preset, Run
from runs.plan import machines_of, usual_pace
from shardagent.wire import Plan

_FIRST = {"provider": "sim", "sandbox_count": "1000", "witness": True}
PRESETS_MAX = 50
NAME_MAX = 60
_CLEARED = ("csrfmiddlewaretoken", "preset_name")


@login_required
@require_http_methods(["GET", "POST"])
def new_run(request: HttpRequest) -> HttpResponse:
    assert request.user.is_authenticated
    if request.method == "GET":
        form = NewRunForm(initial=_initial(request), user=request.user)
        return render(request, "runs/new_run.html", _context(request, form))
    form = NewRunForm(request.POST, user=request.user)
    if not form.is_valid() or form.plan is None:
        ctx = _context(request, form)
        return render(request, "runs/new_run.html", ctx, status=422)
    run = create_run(form.plan, request.user, form.account)
    launch(run, request.user.get_username())
    for warning in _warnings(form.plan):
        messages.warning(request, warning)
    return redirect("run", run.code)


@login_required
@require_GET
def estimate(request: HttpRequest) -> HttpResponse:
    """What this Plan would be, each figure with its formula; what to know before."""
    assert request.user.is_authenticated
    form = NewRunForm(request.GET, user=request.user)
    form.is_valid()
    plan = form.plan  # it can stand where only the account is still missing
    ctx: dict[str, object] = {"form": form, "plan": plan}
    if plan is not None:
        lacks = [str(said) for errors in form.errors.values() for said in errors]
        ctx |= {
            "lines": forecast.lines(plan, usd_per_h(plan.fleet, machines_of(plan))),
            "preview": forecast.preview(plan),
            "warnings": [*lacks, *_warnings(plan)],
        }
    return render(request, "runs/_estimate.html", ctx)


@login_required
@require_POST
def run_preflight(request: HttpRequest) -> HttpResponse:
    """One sandbox through its whole life: each step's time, or why it failed."""
    assert request.user.is_authenticated
    form = NewRunForm(request.POST, user=request.user)
    ctx: dict[str, Any] = {"form": form}
    if form.is_valid() and form.plan is not None:
        try:
            ctx["found"] = preflight.for_operator(request.user, form.plan, form.account)
        except PlanError as error:
            ctx["why"] = "; ".join(error.messages.values())
        except RunsError as error:
            ctx["why"] = str(error)
    return render(request, "runs/_preflight.html", ctx)


@login_required
@require_POST
def save_preset(request: HttpRequest) -> HttpResponse:
    """Keep the form as it stands, valid or not, under a name; the same name again
    replaces it."""
    assert request.user.is_authenticated
    name = request.POST.get("preset_name", "").strip()[:NAME_MAX]
    mine = Preset.objects.filter(owner=request.user)
    if not name:
        messages.error(request, "A preset needs a name.")
    elif mine.count() >= PRESETS_MAX and not mine.filter(name=name).exists():
        messages.error(request, f"{PRESETS_MAX} presets are the most; delete one.")
    else:
        known = NewRunForm(user=request.user).fields
        fields = {k: v for k, v in request.POST.items() if k in known and v}
        preset, _ = mine.update_or_create(
            name=name, defaults={"owner": request.user, "fields": fields}
        )
        return redirect(f"{reverse('new-run')}?preset={preset.pk}")
    return redirect("new-run")


@login_required
@require_POST
def delete_preset(request: HttpRequest, pk: int) -> HttpResponse:
    assert request.user.is_authenticated
    get_object_or_404(Preset, pk=pk, owner=request.user).delete()
    return redirect("new-run")


def _initial(request: HttpRequest) -> dict[str, Any]:
    """The usual, an earlier Run's Plan, a preset, or what the query string says."""
    assert request.user.is_authenticated
    given = request.GET.dict()
    clone, preset = given.pop("clone", ""), given.pop("preset", "")
    if clone:
        found = get_object_or_404(Run, code=clone)
        return {**fields_of(found.plan), **given}
    if preset.isdecimal():
        kept = get_object_or_404(Preset, pk=int(preset), owner=request.user)
        return {"witness": False, **kept.fields, **given}
    return {**_FIRST, **given}


def fields_of(plan: dict[str, Any]) -> dict[str, Any]:
    """The form's fields for a frozen Plan; a new Run has a seed of its own."""
    usual = Plan(provider="sim", sandbox_count=1).model_dump(mode="json")
    usual |= usual_pace(plan["shard_count"], plan["fleet"]["shards_per_host"])
    found: dict[str, Any] = {
        "provider": plan["provider"],
        "witness": plan.get("witness", False),
        "ranked": plan.get("ranked", False),
        "sandbox_count": plan["sandbox_count"],
        "sandboxes_per_shard": plan["sandboxes_per_shard"],
    }
    for name in NUMBERS:
        if name != "seed" and plan.get(name) not in (None, usual.get(name)):
            found[name] = _short(plan[name])
    for name, (outer, inner) in NESTED.items():
        value = (plan.get(outer) or {}).get(inner)
        if value not in (None, 0) and value != (usual.get(outer) or {}).get(inner):
            found[name] = _short(value)
    if found.get("target") == str(plan["sandbox_count"]):
        del found["target"]
    stagger_us = (plan.get("load") or {}).get("stagger_us")
    if stagger_us:
        found["stagger_ms"] = _short(stagger_us / 1_000)
    for name in ("ready_command", "probe_command"):
        if plan.get(name) and plan[name] != usual[name]:
            found[name] = shlex.join(plan[name])
    if plan.get("ready_expect") not in (None, usual["ready_expect"]):
        found["ready_expect"] = plan["ready_expect"]
    if plan.get("endpoint"):
        found["endpoint"] = plan["endpoint"]
    if plan.get("world"):
        found["world"] = json.dumps(plan["world"])
    return found


def _short(value: object) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _warnings(plan: Plan) -> list[str]:
    stored = calibration.stored(settings.DATA) or {}
    return [*warnings_for(plan), *forecast.warnings(plan, stored.get("largest_valid"))]


def _context(request: HttpRequest, form: NewRunForm) -> dict[str, Any]:
    assert request.user.is_authenticated
    return {
        "form": form,
        "presets": Preset.objects.filter(owner=request.user).order_by("name"),
        "clone": request.GET.get("clone", ""),
        "preset": request.GET.get("preset", ""),
    }
