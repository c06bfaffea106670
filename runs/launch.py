"""From what an operator asked for to a queued Run."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from functools import lru_cache

from django.conf import settings
from django.contrib.auth.models import User

from runs import credentials, lifecycle, limits
from runs.errors import PlanError, StateError
from runs.fleets import drivers
from runs.models import Credential, EndReason, Run
from runs.plan import SIMCLOUD, freeze, has_world, lane_of, new_code, parse_plan
from shardagent import __version__, providers
from shardagent.wire import Plan


def checked_plan(asked: object) -> Plan:
    """A Plan that this installation can carry out, or PlanError."""
    plan = parse_plan(
        asked,
        sandbox_count_max=settings.RUN_SANDBOX_COUNT_MAX,
        fleet_drivers=drivers(),
    )
    if has_world(plan):
        _check_world(plan)
    if plan.provider == "local":
        from shardagent.providers.local import detect_isolation

        found = detect_isolation()
        spec = plan.spec.model_copy(update={"isolation": found.name[:300]})
        plan = plan.model_copy(update={"spec": spec})
    return plan


def warnings_for(plan: Plan) -> list[str]:
    """What an operator should know before believing the numbers of this Plan."""
    if plan.endpoint != SIMCLOUD:
        found = [*limits.warnings(plan), *_spec_warnings(plan)]
        if found:
            return found
    if plan.provider == "local":
        from shardagent.providers.local import detect_isolation

        warning = detect_isolation().warning
        return [warning] if warning else []
    return []


def _spec_warnings(plan: Plan) -> list[str]:
    """Fields of the spec that this Provider takes from its image instead."""
    about = providers.about(plan.provider)
    asked = plan.spec.model_fields_set - about.maps - {"isolation"}
    unset = {"image": None, "region": None}
    ignored = sorted(n for n in asked if getattr(plan.spec, n) != unset.get(n, 0))
    if not ignored or not about.entries:
        return []
    fields = ", ".join(f"{name} {getattr(plan.spec, name)}" for name in ignored)
    return [
        f"{about.title} does not let a create choose {fields}; what it gives instead "
        "is read inside the sandbox"
    ]


def create_run(
    plan: Plan, user: User | None, credential: Credential | None = None
) -> Run:
    """A draft; its Plan is frozen here, code, seed and endpoint included."""
    if credential is not None and credential.endpoint and not plan.endpoint:
        plan = plan.model_copy(update={"endpoint": credential.endpoint})
    code = new_code(plan.provider)
    frozen = freeze(
        limits.resolved(plan),
        code=code,
        now_us=time.time_ns() // 1_000,
        software=software(),
    )
    return Run.objects.create(
        code=code,
        provider=plan.provider,
        plan=frozen.model_dump(mode="json"),
        credential=credential,
        lane=lane_of(plan, credential.pk if credential else ""),
        created_by=user,
        ranked=plan.ranked,
    )


def launch(run: Run, by: str) -> None:
    """Queue a draft; StateError where it is none."""
    if not lifecycle.queue(run, by):
        raise StateError(f"Run {run.code} is {run.state}; only a draft can be launched")


def abort(run: Run, by: str) -> None:
    """Tear down, collect and seal what there is. Aborting twice is no error."""
    for _ in range(5):  # the state may move while we look
        run.refresh_from_db()
        if run.end_reason and run.state != "sealed":
            return
        if run.state in ("tearing_down", "collecting"):
            return  # it is ending already
        if lifecycle.stop_early(run, EndReason.ABORTED, f"aborted by {by}"):
            return
    raise StateError(f"Run {run.code} kept changing; try again")


def parse_and_create(asked: object, user: User | None) -> Run:
    """asked: a Plan, beside it the id of a credential (which is no part of it)."""
    plan, wanted = checked_ask(asked)
    return create_run(plan, user, credentials.choose(user, plan, wanted))


def checked_ask(asked: object) -> tuple[Plan, object]:
    """The Plan, and the credential's id that stood beside it."""
    wanted = None
    if isinstance(asked, Mapping):
        wanted = asked.get("credential")
        asked = {key: asked[key] for key in asked if key != "credential"}
    return checked_plan(asked), wanted


@lru_cache(maxsize=1)
def software() -> Mapping[str, str | None]:
    """Version and commit of this installation; commit is None outside a checkout."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=settings.BASE_DIR,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
        commit = found.stdout.strip() or None
    except (OSError, subprocess.TimeoutExpired):
        commit = None
    return {"version": __version__, "commit": commit}


def _check_world(plan: Plan) -> None:
    from pydantic import ValidationError

    from runs.worlds import world_of

    try:
        world_of(plan)
    except ValidationError as error:
        messages = {}
        for item in error.errors(include_url=False):
            field = ".".join(("world", *(str(part) for part in item["loc"])))
            messages[field] = item["msg"][:1].lower() + item["msg"][1:]
        raise PlanError(messages) from None
    except ValueError as error:
        raise PlanError({"world": str(error)}) from None
