"""/api/v1: what interfaces.md names. Without a token only published Runs exist."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI, Status
from ninja.errors import HttpError
from ninja.security import HttpBearer
from pydantic import BaseModel, ConfigDict

from runs import launch as launching
from runs import publication
from runs.api.access import run_or_404, visible_runs
from runs.api.accounts import router as accounts_router
from runs.api.docs import ApiPage
from runs.api.record import router as record_router
from runs.api.shapes import run_json
from runs.errors import (
    CredentialError,
    FleetError,
    ObjectsError,
    PlanError,
    QueryError,
    StateError,
)
from runs.models import State
from runs.operators import user_of_token

PAGE_MAX = 200


class OperatorToken(HttpBearer):
    """An operator's API token; required."""

    def authenticate(self, request: HttpRequest, token: str) -> Any:
        return user_of_token(token)


class OperatorIfAny(HttpBearer):
    """Reads are open (published Runs only); a wrong token is still refused."""

    def __call__(self, request: HttpRequest) -> Any:
        if "Authorization" not in request.headers:
            user = getattr(request, "user", None)
            return user if user is not None and user.is_authenticated else "anyone"
        return super().__call__(request)

    def authenticate(self, request: HttpRequest, token: str) -> Any:
        return user_of_token(token)


class PlanBody(BaseModel):
    """A Plan as in run.json; all keys optional but provider and sandbox_count."""

    model_config = ConfigDict(extra="allow")

    provider: Any = None
    sandbox_count: Any = None


api = NinjaAPI(
    title="Holdfast",
    version="1",
    description=__doc__ or "",
    urls_namespace="api",
    auth=OperatorIfAny(),
    docs=ApiPage(),
    docs_url="/docs",
)
api.add_router("", record_router)
token = OperatorToken()
api.add_router("", accounts_router, auth=token)


@api.get("/runs", tags=["runs"])
def list_runs(
    request: HttpRequest,
    state: str = "",
    provider: str = "",
    after: int = 0,
    limit: int = 50,
) -> dict[str, Any]:
    """Newest first; `next` is what to give as `after` for the following page."""
    if not 1 <= limit <= PAGE_MAX:
        raise HttpError(422, f"limit must be from 1 to {PAGE_MAX}")
    if state and state not in State.values:
        raise HttpError(422, f"state must be one of {', '.join(State.values)}")
    runs = visible_runs(request)
    if state:
        runs = runs.filter(state=state)
    if provider:
        runs = runs.filter(provider=provider)
    if after:
        runs = runs.filter(pk__lt=after)
    rows = list(runs[: limit + 1])
    more = rows[limit - 1].pk if len(rows) > limit else None
    return {"items": [run_json(run) for run in rows[:limit]], "next": more}


@api.post("/runs", auth=token, response={201: dict[str, Any]}, tags=["runs"])
def create(request: HttpRequest, body: PlanBody, launch: bool = False) -> Any:
    """A draft with a frozen Plan; `?launch=true` launches it at once."""
    asked = body.model_dump(exclude_unset=True)
    run = launching.parse_and_create(asked, _user(request))
    if launch:
        launching.launch(run, _name(request))
    return Status(201, run_json(run))


@api.post("/runs/{code}/launch", auth=token, tags=["runs"])
def launch_run(request: HttpRequest, code: str) -> dict[str, Any]:
    """Queue a draft; it starts when its turn comes."""
    run = run_or_404(request, code)
    launching.launch(run, _name(request))
    return run_json(run)


@api.post("/runs/{code}/abort", auth=token, tags=["runs"])
def abort_run(request: HttpRequest, code: str) -> dict[str, Any]:
    """End a live Run in good order: everything is torn down, collected and sealed."""
    run = run_or_404(request, code)
    launching.abort(run, _name(request))
    run.refresh_from_db()
    return run_json(run)


@api.post("/runs/{code}/publish", auth=token, tags=["runs"])
def publish_run(request: HttpRequest, code: str, logs: bool = False) -> dict[str, Any]:
    """Everybody may read the Run; `?logs=true`: hosts, logs and raw segments, too."""
    run = run_or_404(request, code)
    publication.publish(run, _name(request), logs=logs)
    return run_json(run)


@api.post("/runs/{code}/unpublish", auth=token, tags=["runs"])
def unpublish_run(request: HttpRequest, code: str) -> dict[str, Any]:
    """Only operators may read the Run from now on."""
    run = run_or_404(request, code)
    publication.unpublish(run, _name(request))
    return run_json(run)


@api.get("/runs/{code}", tags=["runs"])
def get_run(request: HttpRequest, code: str) -> dict[str, Any]:
    """The Run as its page shows it: outcomes, Held, peak, verdict, labels, defects."""
    return run_json(run_or_404(request, code))


@api.exception_handler(PlanError)
def bad_plan(request: HttpRequest, error: PlanError) -> HttpResponse:
    body = {"detail": "the Plan cannot be carried out", "errors": error.messages}
    return api.create_response(request, body, status=422)


@api.exception_handler(StateError)
def bad_state(request: HttpRequest, error: StateError) -> HttpResponse:
    return api.create_response(request, {"detail": str(error)}, status=409)


@api.exception_handler(CredentialError)
@api.exception_handler(FleetError)
def cannot_begin(request: HttpRequest, error: Exception) -> HttpResponse:
    return api.create_response(request, {"detail": str(error)}, status=409)


@api.exception_handler(QueryError)
def query_failed(request: HttpRequest, error: QueryError) -> HttpResponse:
    status = 503 if error.retryable else 500
    return api.create_response(request, {"detail": "ClickHouse failed"}, status=status)


@api.exception_handler(ObjectsError)
def storage_failed(request: HttpRequest, error: ObjectsError) -> HttpResponse:
    body = {"detail": "object storage does not answer; try again"}
    return api.create_response(request, body, status=503)


def _user(request: Any) -> Any:
    return request.auth


def _name(request: Any) -> str:
    return str(request.auth.get_username())
