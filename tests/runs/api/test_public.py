"""/api/v1 without ClickHouse: who sees what, and what bad input is told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from runs.models import Run, State
from runs.operators import create_token, operator
from tests.runs.factories import make_run

pytestmark = pytest.mark.django_db

PLAN = {"provider": "sim", "sandbox_count": 30}


@pytest.fixture
def bearer() -> str:
    return f"Bearer {create_token(operator('alpha'), 'a test')}"


def ask(
    client: Client, method: str, path: str, bearer: str = "", body: Any = None
) -> Any:
    headers = {"Authorization": bearer} if bearer else {}
    return client.generic(
        method,
        f"/api/v1{path}",
        "" if body is None else json.dumps(body),
        content_type="application/json",
        headers=headers,
    )


def sealed(*, published: bool, level: str = "VALID") -> Run:
    run = make_run()
    Run.objects.filter(pk=run.pk).update(
        state=State.SEALED,
        published_at=timezone.now() if published else None,
        summary={
            "outcomes": {"success": 30},
            "verdict": {"level": level, "reasons": []},
        },
    )
    run.refresh_from_db()
    return run


def test_without_a_token_only_published_runs_exist(client: Client, bearer: str) -> None:
    shown, hidden, draft = sealed(published=True), sealed(published=False), make_run()
    listed = ask(client, "GET", "/runs").json()["items"]
    assert [run["code"] for run in listed] == [shown.code]
    for run in (hidden, draft):
        assert ask(client, "GET", f"/runs/{run.code}").status_code == 404
        assert ask(client, "GET", f"/runs/{run.code}/manifest").status_code == 404
        assert ask(client, "GET", f"/runs/{run.code}", bearer).status_code == 200
    assert len(ask(client, "GET", "/runs", bearer).json()["items"]) == 3


def test_a_wrong_token_is_refused_even_for_reading(client: Client) -> None:
    assert ask(client, "GET", "/runs", "Bearer nonsense").status_code == 401


@pytest.mark.parametrize("action", ["launch", "abort", "publish", "unpublish"])
def test_writing_needs_a_token(client: Client, action: str) -> None:
    run = make_run()
    assert ask(client, "POST", f"/runs/{run.code}/{action}").status_code == 401
    assert ask(client, "POST", "/runs", body=PLAN).status_code == 401


def test_a_revoked_token_is_refused(client: Client, bearer: str) -> None:
    operator("alpha").apitoken_set.update(revoked_at=timezone.now())
    assert ask(client, "POST", "/runs", bearer, PLAN).status_code == 401


def test_a_plan_becomes_a_draft_and_is_launched_once(
    client: Client, bearer: str
) -> None:
    made = ask(client, "POST", "/runs", bearer, PLAN)
    assert made.status_code == 201
    run = made.json()
    assert run["state"] == "draft"
    assert run["plan"]["shard_count"] == 1
    assert run["plan"]["seed"] > 0
    assert sum(v for k, v in run["outcomes"].items() if k != "total") == 30
    path = f"/runs/{run['code']}/launch"
    assert ask(client, "POST", path, bearer).json()["state"] == "queued"
    again = ask(client, "POST", path, bearer)
    assert again.status_code == 409
    assert "only a draft" in again.json()["detail"]


def test_a_bad_plan_has_a_message_for_each_field(client: Client, bearer: str) -> None:
    answer = ask(
        client,
        "POST",
        "/runs",
        bearer,
        {"provider": "sim", "sandbox_count": -5, "hold_s": "long", "shards": 3},
    )
    assert answer.status_code == 422
    assert set(answer.json()["errors"]) == {"sandbox_count", "hold_s", "shards"}
    assert Run.objects.count() == 0


@pytest.mark.parametrize("body", ["[]", "{", '"x"', "null", ""])
def test_what_is_no_plan_at_all_is_a_clear_error(
    client: Client, bearer: str, body: str
) -> None:
    answer = client.post(
        "/api/v1/runs",
        body,
        content_type="application/json",
        headers={"Authorization": bearer},
    )
    assert answer.status_code in (400, 422)
    assert answer.json()["detail"]


def test_an_invalid_run_cannot_be_published(client: Client, bearer: str) -> None:
    run = sealed(published=False, level="INVALID")
    answer = ask(client, "POST", f"/runs/{run.code}/publish", bearer)
    assert answer.status_code == 409
    assert "INVALID" in answer.json()["detail"]
    run.refresh_from_db()
    assert run.published_at is None


def test_a_run_that_is_not_sealed_cannot_be_published(
    client: Client, bearer: str
) -> None:
    run = make_run()
    assert ask(client, "POST", f"/runs/{run.code}/publish", bearer).status_code == 409


def test_pages_of_runs_follow_the_cursor(client: Client, bearer: str) -> None:
    codes = [make_run().code for _ in range(5)]
    found: list[str] = []
    path = "/runs?limit=2"
    for _ in range(3):
        page = ask(client, "GET", path, bearer).json()
        found += [run["code"] for run in page["items"]]
        path = f"/runs?limit=2&after={page['next']}"
    assert found == codes[::-1]
    assert page["next"] is None


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "state=lost", "limit=x"])
def test_a_bad_query_is_422(client: Client, bearer: str, query: str) -> None:
    assert ask(client, "GET", f"/runs?{query}", bearer).status_code == 422


def test_the_api_describes_itself(client: Client) -> None:
    page = client.get("/api/v1/docs")
    assert page.status_code == 200
    schema = client.get("/api/v1/openapi.json").json()
    paths = schema["paths"]
    said = page.content.decode()
    for path, by_method in paths.items():
        for call in by_method.values():
            assert f'id="{call["operationId"]}"' in said  # none is left out
            assert f'href="#{call["operationId"]}"' in said
        assert f"<code>{path}</code>" in said
    named = ("", "/curve", "/latency", "/causes", "/shards", "/sandboxes", "/manifest")
    assert {f"/api/v1/runs/{{code}}{end}" for end in named} <= set(paths)
