"""From what an operator asked for to a frozen Plan, or one clear message per field."""

from __future__ import annotations

import contextlib
import math
import re
import secrets
from collections.abc import Collection, Mapping
from typing import Any, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from runs.errors import PlanError
from runs.verdict import resolved, threshold_errors
from shardagent import providers
from shardagent.errors import ConfigError
from shardagent.providers.base import About
from shardagent.wire import Plan, Shape

FLEET_DRIVERS = ("local", "ssh", "ec2", "kubernetes")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
SIMCLOUD = "simcloud"  # as a Plan's endpoint: a stand-in, started for the Run
HOSTS_DEFAULT_MAX = 10  # agent processes that the local fleet starts unless told
MACHINES_START_S = 120  # boot, wheels, arming: an estimate, all start at once
RANKED_HOLD_S_MIN = 60
RANKED_PROBE_INTERVAL_S_MAX = 10
SEQUENTIAL_COUNT_MAX = 10_000
HEARTBEATS_PER_S_MAX = 2_000
# Runs of so few Shards are heard and recorded twice as often, for whoever watches.
QUICK_INTERVAL_S = 1.0
QUICK_FLUSH_SHARDS_MAX = 20
# Each host sends a request, and says in it how each of its Shards is.
QUICK_BEAT_HOSTS_MAX = 200
QUICK_BEAT_SHARDS_PER_HOST_MAX = 10
_RESERVED = {"format", "code", "created_at_us", "software"}


def parse_plan(
    asked: object,
    *,
    sandbox_count_max: int,
    fleet_drivers: Collection[str] = FLEET_DRIVERS,
) -> Plan:
    """A resolved Plan without code, or PlanError naming every bad field at once."""
    if not isinstance(asked, Mapping):
        raise PlanError({"plan": "must be a JSON object"})
    errors = _unknown_keys(asked, Plan, "")
    asked = {key: value for key, value in asked.items() if key not in _RESERVED}
    provider = asked.get("provider")
    slugs = providers.known()
    if "provider" in asked and provider not in slugs:
        errors["provider"] = (
            f"{provider!r} is not known here; choose one of {', '.join(slugs)}"
        )
    defaults: dict[str, Any] = {"witness": True}
    if isinstance(provider, str) and provider in slugs:
        defaults |= providers.about(provider).plan
    try:
        plan = Plan.model_validate({**defaults, **asked})
    except ValidationError as error:
        errors |= _messages(error) | _threshold_errors(asked.get("thresholds"))
        raise PlanError(errors) from None
    errors |= _count_errors(plan, sandbox_count_max)
    if not errors:
        plan = _resolve_shards(plan, asked, errors)
    if plan.fleet.driver not in fleet_drivers:
        known = ", ".join(fleet_drivers)
        errors["fleet.driver"] = f"{plan.fleet.driver!r} is not known; choose {known}"
    plan = _resolve_pace(plan, {**defaults, **asked})
    errors |= _cross_errors(plan)
    if errors:
        raise PlanError(errors)
    return plan


def new_code(provider: str) -> str:
    """A public code nobody had before: 6–40 characters of a-z0-9-."""
    return f"{provider[:24]}-{secrets.token_hex(4)}"


def freeze(plan: Plan, *, code: str, now_us: int, software: Mapping[str, Any]) -> Plan:
    """The Plan as it goes into run.json: every key resolved, the seed included."""
    return plan.model_copy(
        update={
            "code": code,
            "created_at_us": now_us,
            "seed": plan.seed or secrets.randbelow(2**31 - 1) + 1,
            "thresholds": resolved(plan.thresholds),
            "software": dict(software),
        }
    )


def read_plan(stored: object, code: str) -> Plan:
    """A Plan from a run.json, of any writer: unknown keys ignored, defaults filled."""
    plan = _with_transport(Plan.model_validate(stored))
    per_shard = plan.sandboxes_per_shard
    if plan.shard_count and "sandboxes_per_shard" not in plan.model_fields_set:
        per_shard = math.ceil(plan.sandbox_count / plan.shard_count)
    return plan.model_copy(
        update={
            "code": code,
            "sandboxes_per_shard": per_shard,
            "shard_count": plan.shard_count
            or math.ceil(plan.sandbox_count / per_shard),
            "target": plan.target or plan.sandbox_count,
        }
    )


def _with_transport(plan: Plan) -> Plan:
    """Until 2026-11 what only an SDK speaks was called thin as well."""
    with contextlib.suppress(ConfigError):
        if plan.transport == "thin" and plan.provider in providers.known():
            only = providers.about(plan.provider).transports
            if "thin" not in only:
                return plan.model_copy(update={"transport": only[0]})
    return plan


def burst_s(plan: Plan) -> float:
    """From T0 to the last intended create, in s (sequential: its worst case)."""
    load = plan.load
    if load.shape is Shape.STAGGERED:
        return (plan.sandbox_count - 1) * load.stagger_us / 1e6
    if load.shape is Shape.STAIRCASE:
        return (load.steps - 1) * load.step_s
    if load.shape is Shape.SEQUENTIAL:
        each = plan.create_timeout_s + plan.ready_timeout_s + plan.destroy_timeout_s
        return plan.sandbox_count * each
    return 0.0


def burst_deadline_us(plan: Plan, t0_us: int) -> int:
    """Last intended + create_timeout_s + ready_timeout_s (measurement.md §6)."""
    after = burst_s(plan) + plan.create_timeout_s + plan.ready_timeout_s
    return t0_us + round(after * 1e6)


def hosts_of(plan: Plan) -> int:
    """Hosts that carry its Shards."""
    return math.ceil(plan.shard_count / plan.fleet.shards_per_host)


def machines_of(plan: Plan) -> int:
    """The same and the spares."""
    hosts = hosts_of(plan)
    return hosts + math.ceil(hosts * plan.fleet.over_provision_pct / 100)


def typical_duration_s(plan: Plan) -> float:
    """What a Run of this Plan takes when nothing goes wrong; an estimate for people."""
    local = plan.fleet.driver == "local"
    start = 6 + 0.4 * hosts_of(plan) if local else MACHINES_START_S
    burst = plan.sandbox_count * 2.0 if _sequential(plan) else burst_s(plan) + 5
    hold = 0 if _sequential(plan) else plan.hold_s
    teardown = plan.final_spread_s + plan.probe_failures_max * plan.probe_timeout_s
    return start + burst + hold + teardown + 10 + plan.sandbox_count / 20_000


def _sequential(plan: Plan) -> bool:
    return plan.load.shape is Shape.SEQUENTIAL


def _unknown_keys(
    asked: Mapping[Any, Any], model: type[BaseModel], prefix: str
) -> dict[str, str]:
    errors: dict[str, str] = {}
    for key, value in asked.items():
        field = model.model_fields.get(str(key))
        if field is None:
            errors[f"{prefix}{key}"] = "is not a parameter of a Plan"
            continue
        kinds = [field.annotation, *get_args(field.annotation)]
        for kind in kinds:
            nested = isinstance(kind, type) and issubclass(kind, BaseModel)
            if nested and isinstance(value, Mapping):
                errors |= _unknown_keys(value, kind, f"{prefix}{key}.")
    return errors


def _messages(error: ValidationError) -> dict[str, str]:
    messages: dict[str, str] = {}
    for item in error.errors(include_url=False, include_input=True):
        field = ".".join(str(part) for part in item["loc"]) or "plan"
        said = item["msg"][:1].lower() + item["msg"][1:]
        shown = repr(item["input"])
        given = "" if item["type"] == "missing" else f" (given: {shown[:60]})"
        messages.setdefault(field, said + given)
    return messages


def _threshold_errors(asked: object) -> dict[str, str]:
    """Of a Plan that is wrong elsewhere too: each bad field has its message at once."""
    if not isinstance(asked, Mapping):
        return {}
    known = {str(k): v for k, v in asked.items() if isinstance(v, int | float)}
    return threshold_errors(known)


def _count_errors(plan: Plan, sandbox_count_max: int) -> dict[str, str]:
    if plan.sandbox_count > sandbox_count_max:
        return {
            "sandbox_count": f"this site takes at most {sandbox_count_max:,} "
            f"(given: {plan.sandbox_count:,})"
        }
    return {}


def _resolve_shards(
    plan: Plan, asked: Mapping[str, Any], errors: dict[str, str]
) -> Plan:
    per_shard = plan.sandboxes_per_shard
    if "sandboxes_per_shard" not in asked:
        if _sequential(plan):
            per_shard = min(plan.sandbox_count, SEQUENTIAL_COUNT_MAX)
        elif plan.shard_count:
            per_shard = math.ceil(plan.sandbox_count / plan.shard_count)
    shards = math.ceil(plan.sandbox_count / per_shard)
    if plan.shard_count and plan.shard_count != shards:
        errors["shard_count"] = (
            f"{plan.sandbox_count:,} sandboxes at {per_shard:,} a Shard make "
            f"{shards:,} Shards, not {plan.shard_count:,}; leave one of the two out"
        )
    fleet = plan.fleet
    # Elsewhere a machine a Shard, as the field's own default says.
    if fleet.driver == "local" and "shards_per_host" not in (asked.get("fleet") or {}):
        fleet = fleet.model_copy(
            update={"shards_per_host": math.ceil(shards / HOSTS_DEFAULT_MAX)}
        )
    return plan.model_copy(
        update={
            "sandboxes_per_shard": per_shard,
            "shard_count": shards,
            "target": plan.target or plan.sandbox_count,
            "fleet": fleet,
        }
    )


def _resolve_pace(plan: Plan, asked: Mapping[str, Any]) -> Plan:
    """Heartbeats and flushes as far apart as is usual, unless told."""
    usual = usual_pace(plan.shard_count, plan.fleet.shards_per_host)
    return plan.model_copy(update={k: v for k, v in usual.items() if k not in asked})


def usual_pace(shard_count: int, shards_per_host: int) -> dict[str, float]:
    """Seconds between heartbeats, and between flushes, of so many Shards."""
    names = ("heartbeat_interval_s", "flush_interval_s")
    usual = {name: Plan.model_fields[name].default for name in names}
    few_hosts = math.ceil(shard_count / shards_per_host) <= QUICK_BEAT_HOSTS_MAX
    if few_hosts and shards_per_host <= QUICK_BEAT_SHARDS_PER_HOST_MAX:
        usual["heartbeat_interval_s"] = QUICK_INTERVAL_S
    if shard_count <= QUICK_FLUSH_SHARDS_MAX:
        usual["flush_interval_s"] = QUICK_INTERVAL_S
    return usual


def _cross_errors(plan: Plan) -> dict[str, str]:
    errors = threshold_errors(plan.thresholds)
    if plan.target > plan.sandbox_count:
        errors["target"] = "cannot be more than sandbox_count"
    if plan.shard_count / plan.heartbeat_interval_s > HEARTBEATS_PER_S_MAX * 10:
        errors["heartbeat_interval_s"] = "too short for this many Shards"
    try:
        re.compile(plan.ready_expect)
    except re.error as error:
        errors["ready_expect"] = f"is not a regular expression: {error}"
    if plan.quota_granted is not None and plan.quota_granted_on is None:
        errors["quota_granted_on"] = "a granted quota needs its date (YYYY-MM-DD)"
    errors |= _load_errors(plan)
    errors |= _ranked_errors(plan)
    if plan.provider in providers.known():
        errors |= _provider_errors(plan, providers.about(plan.provider))
    return errors


def _provider_errors(plan: Plan, about: About) -> dict[str, str]:
    """What this Provider cannot do."""
    errors = {}
    if plan.transport not in about.transports:
        known = ", ".join(about.transports)
        errors["transport"] = f"{plan.provider} has only {known}"
    if plan.endpoint == SIMCLOUD and not about.stand_in:
        errors["endpoint"] = f"there is no stand-in for {plan.provider}"
    elif plan.endpoint and plan.endpoint != SIMCLOUD:
        if not re.match(r"^https?://[^/\s@]+", plan.endpoint):
            errors["endpoint"] = "must be http(s)://host, or simcloud"
        elif not about.entries:
            errors["endpoint"] = f"{plan.provider} has no endpoint"
    if plan.world and not has_world(plan):
        errors["world"] = "is only for provider sim and for endpoint simcloud"
    return errors


def has_world(plan: Plan) -> bool:
    """A simulated world is started for the Run, and its truth is known."""
    return plan.provider == "sim" or plan.endpoint == SIMCLOUD


def is_simulated(plan: Plan) -> bool:
    """Not the vendor itself: a world of ours, or another address than its own."""
    if has_world(plan):
        return True
    if not plan.endpoint or plan.provider not in providers.known():
        return False
    own = providers.about(plan.provider).endpoint
    if own:
        return plan.endpoint.rstrip("/") != own
    # Clusters are anywhere, but none that is worth a result is on this machine.
    return urlsplit(plan.endpoint).hostname in LOOPBACK


def lane_of(plan: Plan, account: object = "") -> str:
    """Runs of one lane never live at the same time."""
    where = account or plan.endpoint or ""
    return f"{plan.provider}:{where}"[:80] if where else plan.provider


def _load_errors(plan: Plan) -> dict[str, str]:
    load = plan.load
    if load.shape is Shape.STAGGERED and not load.stagger_us:
        return {"load.stagger_us": "a staggered load needs it (µs between creates)"}
    if load.shape is Shape.STAIRCASE and (load.steps < 2 or not load.step_s):
        return {"load.steps": "a staircase needs steps (2 or more) and step_s"}
    if _sequential(plan) and plan.shard_count != 1:
        return {
            "load.shape": "a sequential load is one Sandbox at a time, so it has one "
            f"Shard of at most {SEQUENTIAL_COUNT_MAX:,}"
        }
    return {}


def _ranked_errors(plan: Plan) -> dict[str, str]:
    wrong = ranked_faults(plan) if plan.ranked else []
    return {"ranked": "a ranked Run needs " + ", ".join(wrong)} if wrong else {}


def ranked_faults(plan: Plan) -> list[str]:
    """What this Plan lacks of a ranked one (measurement.md §8)."""
    wrong = []
    if plan.target != plan.sandbox_count:
        wrong.append("target = sandbox_count")
    if plan.load.shape is not Shape.BURST:
        wrong.append("load.shape burst")
    if plan.hold_s < RANKED_HOLD_S_MIN:
        wrong.append(f"hold_s ≥ {RANKED_HOLD_S_MIN}")
    if plan.probe_interval_s > RANKED_PROBE_INTERVAL_S_MAX:
        wrong.append(f"probe_interval_s ≤ {RANKED_PROBE_INTERVAL_S_MAX}")
    if not plan.witness:
        wrong.append("witness on")
    if plan.rehearsal:
        wrong.append("no rehearsal")
    return wrong
