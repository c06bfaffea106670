"""Where a Run's numbers come from: all that somebody needs to doubt or repeat them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from django.core.cache import cache
from django.urls import reverse

from runs import lifecycle, objects
from runs.errors import ObjectsError
from runs.models import Run, State
from runs.overhead import overhead_of
from runs.templatetags.runs_format import (
    duration,
    figure,
    microseconds,
    thousands,
    words,
)
from shardagent.wire import Plan

KEPT_S = 24 * 3_600


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the card; without a value `why` says why. href: what backs it."""

    name: str
    value: str
    why: str = ""
    href: str = ""


def provenance(run: Run, plan: Plan) -> Sequence[tuple[str, list[Line]]]:
    """The card, in groups: who and when, what was asked, by which means, the record."""
    return (
        ("Who and when", _who(run, plan)),
        ("What was asked", _asked(run, plan)),
        ("By which means", _means(run, plan)),
        ("The record", _record(run)),
    )


def _who(run: Run, plan: Plan) -> list[Line]:
    tester = run.created_by.get_username() if run.created_by else run.published_by
    t0 = _instant(run.t0_us)
    return [
        Line("Provider", run.provider + (", simulated" if run.simulated else "")),
        Line("Told beforehand", "yes, announced" if plan.announced else "no"),
        Line(
            "Region", plan.spec.region or "", "none was asked for: the Provider chose"
        ),
        Line(
            "Tester",
            tester,
            "no operator is recorded: launched by a command, or the account is gone",
        ),
        Line(
            "Launched",
            f"{run.launched_at:%-d %b %Y %H:%M:%S} UTC" if run.launched_at else "",
            "its launch is not recorded",
        ),
        Line("T0", t0, _until_sealed(run, "no create was ever released")),
        Line("Sealed", _instant(run.sealed_at_us), "not sealed yet"),
        *([Line("Note", plan.note)] if plan.note else []),
    ]


def _asked(run: Run, plan: Plan) -> list[Line]:
    spec = plan.spec
    probes = plan.sandbox_count / plan.probe_interval_s
    return [
        Line(
            "Load",
            f"{thousands(plan.sandbox_count)} sandboxes, {words(plan.load.shape)}; "
            f"target {thousands(plan.target or plan.sandbox_count)}",
        ),
        Line("Hold", duration(plan.hold_s)),
        Line(
            "Spec asked for",
            f"{spec.cpu:g} CPU, {thousands(spec.memory_mb)} MB, "
            f"{spec.image or 'the Provider’s default image'}"
            + (f", isolated by {spec.isolation}" if spec.isolation else ""),
        ),
        _observed(run),
        _previous(run),
        Line(
            "Image",
            {"default": "the default", "seen": "seen before", "fresh": "fresh"}[
                plan.image_state
            ],
        ),
        Line(
            "Memory",
            f"filled to {plan.fill_memory_pct} %" if plan.fill_memory_pct else "idle",
        ),
        Line("Readiness", f"{' '.join(plan.ready_command)} → /{plan.ready_expect}/"),
        Line(
            "Probes",
            f"{' '.join(plan.probe_command)}, each sandbox every "
            f"{duration(plan.probe_interval_s)}: {figure(probes)} a second in all",
        ),
        Line("Witness", "on" if plan.witness else "off: answers on demand"),
        Line(
            "Timeouts",
            f"create {duration(plan.create_timeout_s)}, readiness "
            f"{duration(plan.ready_timeout_s)}, probe {duration(plan.probe_timeout_s)}",
        ),
        Line(
            "Quota granted",
            ""
            if plan.quota_granted is None
            else f"{thousands(plan.quota_granted)}, since "
            f"{plan.quota_granted_on or 'an unknown day'}",
            "none was stated",
        ),
    ]


def _observed(run: Run) -> Line:
    """Medians of what one sandbox a Shard said it was given."""
    found = (run.summary or {}).get("observed") or {}
    cpus, memory = found.get("cpus"), found.get("memory_bytes")
    said = []
    if cpus is not None:
        said.append(f"{cpus:g} CPU")
    if memory is not None:
        said.append(f"{thousands(memory / 2**20)} MiB")
    if said and found.get("shards"):
        said.append(f"as {thousands(found['shards'])} sandboxes said")
    if found.get("connect_us") is not None:
        said.append(f"connect round trip {microseconds(found['connect_us'])}")
    why = "the sandboxes did not say what they were given"
    return Line("Spec observed", ", ".join(said), _until_sealed(run, why))


def _previous(run: Run) -> Line:
    """How rested the Provider was: since the site's last Run there."""
    since_s = ((run.summary or {}).get("observed") or {}).get("since_previous_s")
    said = "" if since_s is None else f"{figure(since_s / 60)} min before T0"
    why = _until_sealed(run, "this site knows of none")
    return Line("Previous Run there", said, why)


def _machines(run: Run) -> list[Line]:
    """Kinds of machines, and what orchestration cost; of a sealed Run."""
    said = (run.summary or {}).get("fleet") or {}
    shared = said.get("shared_egress")
    lines = [
        Line("Machines", _kinds(said, "types")),
        Line("Machines came", _came(said.get("provisioned") or {})),
        Line("Machines in", _kinds(said, "zones") or _kinds(said, "regions")),
        Line("Kernels", _kinds(said, "kernels")),
        Line("Agent versions", _kinds(said, "versions")),
        Line(
            "Egress addresses",
            ""
            if shared is None
            else f"{thousands(said.get('egress_addresses'))}; Shards that share one "
            f"with another: {thousands(shared)}",
        ),
        Line("Launch to armed", _armed(said)),
        Line("Machines cost", _cost(run, said)),
    ]
    return [line for line in lines if line.value]


def _kinds(said: Mapping[str, Any], name: str) -> str:
    found = said.get(name) or {}
    mixed = "mixed: " if name == "types" and len(found) > 1 else ""
    shown = ", ".join(f"{thousands(n)} × {kind}" for kind, n in found.items())
    return mixed + shown


def _came(provisioned: Mapping[str, Any]) -> str:
    """How many, and why not the rest."""
    asked, granted = provisioned.get("asked"), provisioned.get("granted")
    if asked is None or granted is None:
        return ""
    reasons = (provisioned.get("reasons") or {}).items()
    whys = "".join(f"; {thousands(count)} not: {why}" for why, count in reasons)
    return f"{thousands(granted)} of {thousands(asked)}{whys}"


def _cost(run: Run, said: Mapping[str, Any]) -> str:
    """From the Run's turn to its teardown, as if all had been there all the time."""
    usd_per_h = (said.get("provisioned") or {}).get("usd_per_h")
    armed_s, t0_us, end_us = said.get("launch_to_armed_s"), run.t0_us, run.t_destroy_us
    if not usd_per_h or armed_s is None or t0_us is None or end_us is None:
        return ""
    usd = usd_per_h * (armed_s + (end_us - t0_us) / 1e6) / 3_600
    return f"about ${usd:,.2f} at ${usd_per_h:,.2f} an hour, by list price"


def _armed(said: Mapping[str, Any]) -> str:
    took = said.get("launch_to_armed_s")
    if took is None:
        return ""
    parts = [
        f"{name} {duration(said[key])}"
        for name, key in (("machines", "provision_s"), ("arming", "arm_s"))
        if said.get(key) is not None
    ]
    return f"{duration(took)} ({', '.join(parts)})" if parts else duration(took)


def _means(run: Run, plan: Plan) -> list[Line]:
    hosts = run.hosts.count()
    software = run.plan.get("software") or {}
    bound = (run.summary or {}).get("clock_bound_us")
    return [
        Line(
            "Fleet",
            f"{thousands(plan.shard_count)} Shards of "
            f"{thousands(plan.sandboxes_per_shard)}, "
            + (
                f"on {thousands(hosts)} {plan.fleet.driver} host"
                f"{'' if hosts == 1 else 's'}"
                if hosts
                else f"driver {plan.fleet.driver}"
            ),
            href=reverse("shards", args=[run.code]),
        ),
        *_machines(run),
        Line("Transport", plan.transport),
        _bias(plan),
        Line("Software", software.get("version") or "", "not recorded"),
        Line("Commit", (software.get("commit") or "")[:12], "not recorded"),
        Line(
            "Clock bound",
            "" if bound is None else f"± {microseconds(bound)}",
            _until_sealed(run, "no instant of the proven curve was placed"),
            reverse("shards", args=[run.code]) + "?sort=clock_bound_us",
        ),
        Line("Seed", str(plan.seed)),
    ]


def _bias(plan: Plan) -> Line:
    """What the client itself is known to add to what the Provider is blamed for."""
    found = overhead_of(plan.provider, plan.transport)
    said = ""
    if found is not None:
        said = (
            f"adds about {found.p99_ms:.3g} ms at P99 ({found.p50_ms:.3g} ms at P50) "
            f"to a create at {found.together} concurrent, measured by make bench on "
            f"{found.measured} ({found.machine})"
        )
    why = "not measured: make bench has no figure for this provider and transport"
    return Line("This client", said, why)


def _record(run: Run) -> list[Line]:
    api = f"/api/v1/runs/{run.code}"
    defects = (run.summary or {}).get("defects")
    return [
        Line("Run", run.code, href=api),
        Line(
            "Manifest SHA-256",
            _manifest_hash(run),
            "written when the Run is sealed",
            f"{api}/manifest",
        ),
        Line(
            "Defects",
            "" if defects is None else thousands(defects),
            "counted when the Run is sealed",
            f"{api}/defects",
        ),
        Line("Raw segments", "every one, with links", href=f"{api}/raw"),
    ]


def _until_sealed(run: Run, why: str) -> str:
    """Of what is never known where it is not known at the end."""
    return why if run.state == State.SEALED else "not known yet"


def _instant(at_us: int | None) -> str:
    if at_us is None:
        return ""
    if not 0 <= at_us <= lifecycle.DATE_MAX_US:
        return f"{at_us:,} µs"  # no date: the record is not from here
    at = datetime.fromtimestamp(at_us / 1e6, UTC)
    return f"{at:%-d %b %Y %H:%M:%S}.{at.microsecond // 1000:03d} UTC"


def _manifest_hash(run: Run) -> str:
    if run.state != State.SEALED:
        return ""
    key = f"manifest-sha256:{run.code}:{run.sealed_at_us}"
    found: str | None = cache.get(key)
    if found is None:
        try:
            body = objects.get(f"runs/{run.code}/manifest.json")
        except ObjectsError:
            return ""
        found = sha256(body).hexdigest() if body else ""
        cache.set(key, found, KEPT_S)
    return found
