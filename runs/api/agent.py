"""/agent/v1, but for its heartbeat: small, HTTP, fenced by host and attempt."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.errors import HttpError
from ninja.security import HttpBearer

from runs import hosts, lifecycle, objects, worlds
from runs.api.heartbeat import interval_s
from runs.errors import StateError
from runs.heartbeats import is_another
from runs.hosts import is_token_of
from runs.models import Host, Run, State
from shardagent.wire import (
    PROTOCOL,
    URLS_PER_REQUEST_MAX,
    ClaimAnswer,
    ClaimRequest,
    Lease,
    RegisterAnswer,
    RegisterRequest,
    UploadUrl,
    UrlsAnswer,
    UrlsRequest,
    segment_key,
)

URL_LIFETIME_MARGIN_S = 6 * 3600


class HostToken(HttpBearer):
    """Accepts any bearer; each call compares it with the host that it names."""

    def authenticate(self, request: HttpRequest, token: str) -> str:
        return token


api = NinjaAPI(
    title="Holdfast agents",
    version="1",
    urls_namespace="agent",
    auth=HostToken(),
    docs_url=None,
    openapi_url=None,
)


@api.post("/claim", response=ClaimAnswer)
def claim(request: HttpRequest, body: ClaimRequest) -> ClaimAnswer:
    """A machine of the Run asks which host it carries."""
    if not hosts.is_fleet_token_of(request.auth, body.run):  # type: ignore[attr-defined]
        raise HttpError(401, "the token is not this Run's")
    _speaks(body.protocol)
    run = Run.objects.filter(code=body.run).first()
    if run is None:
        raise HttpError(409, f"there is no Run {body.run}; leave")
    try:
        host = hosts.claim(run, body.machine, body.index)
    except StateError as error:
        raise HttpError(409, str(error)) from None
    if host is None:
        # Too early, and no failure of ours: each spare asks every second.
        raise HttpError(425, "no host is free; ask again, one may be lost")
    return ClaimAnswer(host=host.index, token=hosts.token_of(run.code, host.index))


@api.post("/register", response=RegisterAnswer)
def register(request: HttpRequest, body: RegisterRequest) -> RegisterAnswer:
    run, host = _authorised(request, body.run, body.host, body.protocol)
    if run.state in (State.COLLECTING, State.SEALED):
        raise HttpError(409, f"Run {run.code} is over; leave")
    leases = host.attempts.filter(fenced_at_us__isnull=True).order_by("shard")
    rows = [Lease(shard=a.shard, attempt=a.number) for a in leases]
    if not rows:
        raise HttpError(409, f"host {host.index} carries no Shard any more; leave")
    plan = lifecycle.plan_of(run)
    facts = body.model_dump(exclude={"protocol", "run", "host"})
    facts["egress"] = body.egress or request.META.get("REMOTE_ADDR", "")
    if not hosts.admit(run, host, facts, plan):
        raise HttpError(503, f"another process speaks for host {host.index}; ask again")
    return RegisterAnswer(
        plan=plan,
        shards=rows,
        clock_id=run.clock_id,
        heartbeat_interval_s=interval_s(run.state, plan.heartbeat_interval_s),
        provider_config=worlds.provider_config(run),
        seen_from=request.META.get("REMOTE_ADDR", ""),
    )


@api.post("/urls", response=UrlsAnswer)
def urls(request: HttpRequest, body: UrlsRequest) -> UrlsAnswer:
    """Presigned PUTs, each for exactly one key of the host's own Attempts."""
    run, host = _authorised(request, body.run, body.host, body.protocol)
    if run.state == State.SEALED:
        raise HttpError(409, f"Run {run.code} is sealed; leave")
    _refuse_others(host, body.process)
    own = set(host.attempts.values_list("shard", "number"))
    plan = run.plan
    lifetime_s = int(plan.get("hold_s", 0)) + URL_LIFETIME_MARGIN_S
    for wish in body.wishes:
        if (wish.shard, wish.attempt) not in own:
            raise HttpError(403, f"Shard {wish.shard} is not this host's")
    wished = [
        (wish, seq)
        for wish in body.wishes
        for seq in range(wish.first_seq, wish.first_seq + wish.count)
    ][:URLS_PER_REQUEST_MAX]
    keys = [
        segment_key(run.code, wish.shard, wish.attempt, wish.kind, seq)
        for wish, seq in wished
    ]
    signed = objects.put_urls(keys, lifetime_s)
    return UrlsAnswer(
        urls=[
            UploadUrl(
                shard=wish.shard,
                attempt=wish.attempt,
                kind=wish.kind,
                seq=seq,
                url=url,
            )
            for (wish, seq), url in zip(wished, signed, strict=True)
        ]
    )


@api.exception_handler(Exception)
def failed(request: HttpRequest, error: Exception) -> HttpResponse:
    """An unforeseen failure is the site's and may pass: agents try again."""
    import logging

    logging.getLogger(__name__).exception("agent call failed", exc_info=error)
    return api.create_response(request, {"detail": "the site failed"}, status=503)


def _authorised(request: Any, code: str, index: int, protocol: int) -> tuple[Run, Host]:
    _is_host(request, code, index, protocol)
    host = Host.objects.select_related("run").filter(run__code=code, index=index)
    found = host.first()
    if found is None:
        raise HttpError(409, f"Run {code} has no host {index}; leave")
    return found.run, found


def _is_host(request: Any, code: str, index: int, protocol: int) -> None:
    if not is_token_of(request.auth, code, index):
        raise HttpError(401, "the token is not this host's")
    _speaks(protocol)


def _speaks(protocol: int) -> None:
    if protocol != PROTOCOL:
        raise HttpError(422, f"this site speaks protocol {PROTOCOL}, not {protocol}")


def _refuse_others(host: Host, process: str) -> None:
    """Only the process that registered last speaks for a host."""
    if is_another(process, host.facts.get("process") or ""):
        raise HttpError(409, f"host {host.index} is another process's now; leave")
