from __future__ import annotations

import json

import pytest
from django.contrib.auth.models import User
from django.test import Client

from runs import credentials
from runs.launch import create_run
from runs.models import Credential
from runs.operators import create_token
from runs.plan import parse_plan

KEY = "e2b_0123456789abcdef"
pytestmark = pytest.mark.django_db


def store(operator: Client, **changes: str) -> object:
    body = {"provider": "e2b", "label": "work", "api_key": KEY, **changes}
    return operator.post("/credentials/", body, follow=True)


def test_a_stored_key_is_never_on_a_page_again(operator: Client) -> None:
    pages = [store(operator), operator.get("/credentials/?provider=e2b")]
    for page in pages:
        text = page.content.decode()  # type: ignore[attr-defined]
        assert page.status_code == 200  # type: ignore[attr-defined]
        assert "work" in text
        assert KEY not in text
    assert Credential.objects.count() == 1


def test_a_form_with_a_gap_says_which_and_does_not_echo_the_key(
    operator: Client,
) -> None:
    body = {"provider": "vercel", "label": "x", "api_key": KEY, "team_id": "t"}
    page = operator.post("/credentials/", body)
    assert page.status_code == 422
    text = page.content.decode()
    assert "This field is required" in text
    assert KEY not in text
    assert not Credential.objects.exists()


def test_a_visitor_sees_nothing_and_an_unknown_provider_no_form(
    operator: Client, client: Client
) -> None:
    assert client.get("/credentials/").status_code == 302
    page = operator.get("/credentials/?provider=nobody").content.decode()
    assert "Store" not in page


def test_deleting_is_for_the_owner_and_not_under_a_run(operator: Client) -> None:
    store(operator)
    made = Credential.objects.get()
    other = Client()
    other.force_login(User.objects.create(username="bert"))
    assert other.post(f"/credentials/{made.pk}").status_code == 404
    plan = parse_plan({"provider": "e2b", "sandbox_count": 1}, sandbox_count_max=9)
    run = create_run(plan, made.owner, made)
    page = operator.post(f"/credentials/{made.pk}", follow=True)
    assert "still uses" in page.content.decode()
    run.delete()
    operator.post(f"/credentials/{made.pk}")
    assert not Credential.objects.exists()


def test_the_api_lists_names_alone_and_chooses_by_id(client: Client) -> None:
    anna = User.objects.create(username="anna")
    credentials.add(anna, "e2b", "one", {"api_key": KEY})
    second = credentials.add(anna, "e2b", "two", {"api_key": KEY})
    bearer = {"Authorization": f"Bearer {create_token(anna, 'a test')}"}
    listed = client.get("/api/v1/credentials", headers=bearer)
    assert KEY not in listed.content.decode()
    assert [row["label"] for row in listed.json()["items"]] == ["one", "two"]
    assert client.get("/api/v1/credentials").status_code == 401

    def launch(**beside: object) -> object:
        body = {"provider": "e2b", "sandbox_count": 1, **beside}
        return client.post(
            "/api/v1/runs",
            json.dumps(body),
            content_type="application/json",
            headers=bearer,
        )

    refused = launch()
    assert refused.status_code == 422  # type: ignore[attr-defined]
    assert "choose one" in refused.json()["errors"]["credential"]  # type: ignore[attr-defined]
    made = launch(credential=second.pk)
    assert made.status_code == 201  # type: ignore[attr-defined]
    assert KEY not in made.content.decode()  # type: ignore[attr-defined]
