"""The page of the API: every call with its parameters, from its own schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from ninja import NinjaAPI
from ninja.openapi.docs import DocsBase

PREFIX = "/api/v1"
GROUPS = {
    "runs": "Runs",
    "record": "What a Run recorded",
    "leaderboard": "Leaderboard",
    "accounts": "Accounts at Providers",
}


class ApiPage(DocsBase):
    """In the place of a viewer that brings a megabyte of scripts of its own."""

    def render_page(
        self, request: HttpRequest, api: NinjaAPI, **kwargs: Any
    ) -> HttpResponse:
        schema = api.get_openapi_schema()
        calls = list(_calls(schema))
        groups = [
            {"name": name, "calls": [one for one in calls if one["tag"] == tag]}
            for tag, name in GROUPS.items()
        ]
        ctx = {"groups": groups, "schema": self.get_openapi_url(api, kwargs)}
        return render(request, "runs/api.html", ctx)


def _calls(schema: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for path, by_method in schema["paths"].items():
        for method, call in by_method.items():
            needs_token = any("OperatorToken" in one for one in call["security"])
            yield {
                "method": method.upper(),
                "path": path,
                "short": path.removeprefix(PREFIX),
                "id": call["operationId"],
                "tag": call["tags"][0],
                "says": call.get("description") or call["summary"],
                "token": needs_token,
                "body": "requestBody" in call,
                "parameters": [
                    _parameter(one)
                    for one in call.get("parameters", [])
                    if one["in"] != "path"  # the path itself shows it
                ],
            }


def _parameter(found: Mapping[str, Any]) -> dict[str, Any]:
    schema = found["schema"]
    kinds = [schema, *schema.get("anyOf", [])]
    types = [one["type"] for one in kinds if one.get("type", "null") != "null"]
    default = schema.get("default")
    choices = schema.get("enum") or [one["const"] for one in kinds if "const" in one]
    return {
        "name": found["name"],
        "type": ", ".join(map(str, choices)) or "".join(types[:1]),
        "required": found.get("required", False),
        "default": str(default).lower() if isinstance(default, bool) else default,
        "says": found.get("description") or "",
    }
