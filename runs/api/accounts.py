"""/api/v1, what only operators have: credentials (names only) and the preflight."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import Router
from pydantic import BaseModel, ConfigDict

from runs import credentials, preflight
from runs.launch import checked_ask
from runs.models import Credential

router = Router()


class PreflightBody(BaseModel):
    """A Plan's fields, and beside them the id of a credential."""

    model_config = ConfigDict(extra="allow")

    provider: Any = None
    credential: int | None = None


@router.get("/credentials", tags=["accounts"])
def list_credentials(request: HttpRequest) -> dict[str, Any]:
    """Your own accounts at Providers: their names, never what is in them."""
    mine = Credential.objects.filter(owner=_user(request))
    return {
        "items": [
            {
                "id": one.pk,
                "provider": one.provider,
                "label": one.label,
                "endpoint": one.endpoint or None,
                "created_at": one.created_at.isoformat(),
            }
            for one in mine
        ]
    }


@router.post("/preflight", tags=["accounts"])
def run_preflight(request: HttpRequest, body: PreflightBody) -> dict[str, Any]:
    """One sandbox through its whole life; some seconds, 180 at most."""
    asked = {"sandbox_count": 1, **body.model_dump(exclude_unset=True)}
    plan, wanted = checked_ask(asked)
    user = _user(request)
    chosen = credentials.choose(user, plan, wanted)
    return preflight.for_operator(user, plan, chosen).json()


def _user(request: Any) -> Any:
    return request.auth
