"""POST /agent/v1/heartbeat: the one call that thousands of agents make all the time.

A middleware, before all others: what those do for pages (sessions, compression, routes)
costs more than the heartbeat itself. What it takes and answers is in shardagent.wire;
errors are said as the other calls of /agent/v1 say theirs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import orjson
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse
from django.http.request import UnreadablePostError
from django.http.response import HttpResponseBase
from pydantic import ValidationError

from runs import clock
from runs.errors import StateError
from runs.heartbeats import Heard, desk
from runs.hosts import is_token_of
from runs.models import State
from runs.supervise import ARMING_BEAT_S
from shardagent.wire import PROTOCOL, HeartbeatAnswer, HeartbeatRequest

PATH = "/agent/v1/heartbeat"
ERRORS_SHOWN_MAX = 5
_QUICK_STATES = {State.PROVISIONING, State.ARMING}
_BEARER = "Bearer "

log = logging.getLogger(__name__)


def heartbeats(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    def answer(request: HttpRequest) -> HttpResponseBase:
        if request.path_info != PATH:
            return get_response(request)
        if request.method != "POST":
            return _refused(405, "only POST")
        try:
            return _heartbeat(request)
        except Exception:  # it may pass: the agent tries again
            log.exception("a heartbeat failed")
            return _refused(503, "the site failed")

    return answer


def interval_s(state: str, planned_s: float) -> float:
    """How long an agent waits between two heartbeats."""
    return min(ARMING_BEAT_S, planned_s) if state in _QUICK_STATES else planned_s


def _heartbeat(request: HttpRequest) -> HttpResponse:
    came_ns = clock.raw_ns()
    said = request.META.get("HTTP_AUTHORIZATION", "")
    if not said.startswith(_BEARER):
        return _refused(401, "Unauthorized")
    try:
        body = HeartbeatRequest.model_validate_json(request.body)
    except ValidationError as error:
        shown = error.errors(include_url=False, include_context=False)
        return _refused(422, shown[:ERRORS_SHOWN_MAX])
    except RequestDataTooBig:
        return _refused(413, "the request is too large")
    except UnreadablePostError:
        return _refused(400, "the request broke off")
    if not is_token_of(said.removeprefix(_BEARER), body.run, body.host):
        return _refused(401, "the token is not this host's")
    if body.protocol != PROTOCOL:
        text = f"this site speaks protocol {PROTOCOL}, not {body.protocol}"
        return _refused(422, text)
    try:
        heard = desk.hear(body, came_ns)
    except TimeoutError:
        return _refused(503, "the heartbeat could not be recorded in time")
    except StateError as error:
        return _refused(409, str(error))
    return _json(200, _answer(heard).model_dump_json().encode())


def _answer(heard: Heard) -> HeartbeatAnswer:
    return HeartbeatAnswer(
        clock_id=heard.clock.clock_id,
        t2_us=heard.at_us,
        t3_us=heard.clock.now_us(),
        interval_s=interval_s(heard.state, heard.interval_s),
        instants=heard.instants,
        leave=heard.leave,
        fenced=heard.fenced,
    )


def _refused(status: int, detail: object) -> HttpResponse:
    return _json(status, orjson.dumps({"detail": detail}, default=str))


def _json(status: int, body: bytes) -> HttpResponse:
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    return HttpResponse(body, status=status, headers=headers)
