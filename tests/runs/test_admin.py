"""The admin shows Runs and publishes by the rule, and can do nothing else to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from runs import objects
from runs.models import Run, State


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Where publication.json goes: the store is an edge, and has its own tests."""
    kept: dict[str, bytes] = {}
    monkeypatch.setattr(objects, "put", lambda key, body: kept.update({key: body}))
    return kept


@pytest.fixture(autouse=True)
def plain_static(settings: Any) -> None:
    """No manifest of static files exists in a test."""
    Path(settings.STATIC_ROOT).mkdir(parents=True, exist_ok=True)
    storage = "django.contrib.staticfiles.storage.StaticFilesStorage"
    settings.STORAGES = {**settings.STORAGES, "staticfiles": {"BACKEND": storage}}


@pytest.fixture
def client(db: None) -> Client:
    found = Client()
    found.force_login(User.objects.create_superuser("op"))
    return found


def sealed(code: str, level: str) -> Run:
    return Run.objects.create(
        code=code,
        provider="sim",
        state=State.SEALED,
        plan={"provider": "sim", "sandbox_count": 1, "target": 1},
        summary={"verdict": {"level": level}},
        world={"secret": "the-world-secret"},
    )


def act(client: Client, action: str, *runs: Run) -> Any:
    return client.post(
        "/admin/runs/run/",
        {"action": action, "_selected_action": [run.pk for run in runs]},
        follow=True,
    )


def test_an_invalid_run_is_refused_and_a_valid_one_published(
    client: Client, stored: dict[str, bytes]
) -> None:
    valid, invalid = sealed("run-valid", "VALID"), sealed("run-invalid", "INVALID")
    answer = act(client, "publish", valid, invalid)
    valid.refresh_from_db()
    invalid.refresh_from_db()
    assert valid.published_at is not None
    assert invalid.published_at is None
    assert list(stored) == ["runs/run-valid/publication.json"]
    assert b"cannot be published" in answer.content
    act(client, "unpublish", valid)
    valid.refresh_from_db()
    assert valid.published_at is None


def test_a_run_can_be_looked_at_and_not_changed(client: Client) -> None:
    run = sealed("run-alpha", "SUSPECT")
    page = client.get(f"/admin/runs/run/{run.pk}/change/")
    assert page.status_code == 200
    assert b"SUSPECT" in page.content
    assert b"the-world-secret" not in page.content
    assert client.post(f"/admin/runs/run/{run.pk}/change/", {}).status_code == 403
    assert client.post(f"/admin/runs/run/{run.pk}/delete/", {}).status_code == 403
    assert client.get("/admin/runs/run/add/").status_code == 403
