"""/ops/v1: what management commands ask of the running site.

The site alone owns the embedded ClickHouse, so a command beside it cannot open it. Only
who knows the installation's secret key can call this.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils.crypto import constant_time_compare, salted_hmac
from ninja import NinjaAPI
from ninja.security import HttpBearer

from runs import operations
from runs.errors import RunsError


def ops_token() -> str:
    return salted_hmac("holdfast.ops", str(settings.DATA)).hexdigest()


class OpsToken(HttpBearer):
    def authenticate(self, request: HttpRequest, token: str) -> bool | None:
        return constant_time_compare(token, ops_token()) or None


api = NinjaAPI(
    title="Holdfast operations",
    version="1",
    urls_namespace="ops",
    auth=OpsToken(),
    docs_url=None,
    openapi_url=None,
)


@api.post("/{name}/{code}")
def operate(request: HttpRequest, name: str, code: str) -> Any:
    operation = operations.BY_NAME.get(name)
    if operation is None:
        return api.create_response(request, {"error": "no such operation"}, status=404)
    try:
        return operation(code)
    except RunsError as error:
        return api.create_response(request, {"error": str(error)}, status=409)
