from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from runs import fleets
from runs.models import Preset, Run
from runs.preflight import Preflight, Step
from runs.views import new_run

MakeRun = Callable[..., Run]
PAGE = "/runs/new"


def body(client: Client, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status
    return " ".join(answer.content.decode().split())


def test_the_estimate_has_formulas_a_preview_and_warnings(operator: Client) -> None:
    said = body(operator, f"{PAGE}/estimate?provider=sim&sandbox_count=1000&hold_s=60")
    assert "⌈1,000 / 100⌉" in said
    assert "<polyline points=" in said
    said = body(
        operator, f"{PAGE}/estimate?provider=e2b&sandbox_count=5000&max_cost=0.1"
    )
    assert "over the budget of $0.10" in said
    assert "the published limit" in said


def test_what_cannot_be_estimated_says_why(operator: Client) -> None:
    said = body(operator, f"{PAGE}/estimate?provider=sim&sandbox_count=many")
    assert "No estimate yet" in said
    assert "<li>Sandboxes: " in said


def test_what_is_folded_opens_where_it_is_wrong(operator: Client) -> None:
    fields = {"provider": "sim", "sandbox_count": "10", "create_timeout_s": "never"}
    answer = operator.post(PAGE, fields)
    assert answer.status_code == 422
    said = answer.content.decode()
    assert "<details open><summary>Timeouts" in said
    assert said.count("<details open>") == 1


def test_a_fleet_is_chosen_and_what_it_costs_is_told_beforehand(
    operator: Client, tmp_path: Path, settings: Any
) -> None:
    region = {"image": "ami-1", "machine_types": ["t3.small"]}
    prices = {"usd_per_h": {"t3.small": 0.02}, "spot_share": 0.5}
    said = {"ec2": {"regions": {"eu-west-1": region}, **prices}}
    (tmp_path / "fleets.json").write_text(json.dumps(said))
    settings.FLEETS_FILE = str(tmp_path / "fleets.json")
    fleets.fleet_for.cache_clear()
    asked = "provider=sim&sandbox_count=1000&fleet_driver=ec2&fleet_spot=on"
    page = f"{PAGE}/estimate?{asked}&fleet_over_provision_pct=20"
    found = body(operator, page)
    assert "⌈10 / 1⌉, fleet ec2, and 2 spare" in found
    assert "$0.12 an hour" in found
    settings.FLEETS_FILE = ""
    fleets.fleet_for.cache_clear()
    assert "an hour" not in body(operator, page)  # where it is not set up


def test_an_earlier_run_is_cloned(operator: Client, make_run: MakeRun) -> None:
    fleet = {"driver": "ec2", "over_provision_pct": 5, "spot": True}
    changes = {"hold_s": 33, "ready_command": ["node", "-e", "1 + 1"], "fleet": fleet}
    run = make_run(plan=changes)
    said = body(operator, f"{PAGE}?clone=alpha-1")
    assert 'name="hold_s" value="33"' in said
    assert "node -e &#x27;1 + 1&#x27;" in said
    assert 'name="seed" value' not in said
    form = new_run.NewRunForm(new_run.fields_of(run.plan))
    assert form.is_valid(), form.errors
    again = form.plan
    assert again is not None
    names = ("load", "hold_s", "spec", "world", "ready_command", "target", "fleet")
    for name in names:
        assert again.model_dump(mode="json")[name] == run.plan[name], name
    assert 'href="/runs/new?clone=alpha-1"' in body(operator, "/runs/alpha-1")


def test_a_preset_is_saved_used_and_deleted(operator: Client) -> None:
    fields = {"provider": "sim", "sandbox_count": "4321", "preset_name": "weekly"}
    answer = operator.post(f"{PAGE}/presets", fields)
    assert "csrfmiddlewaretoken" not in Preset.objects.get().fields
    said = body(operator, answer.headers["Location"])
    assert 'value="4321"' in said
    assert "weekly" in said
    operator.post(f"{PAGE}/presets", {**fields, "sandbox_count": "5"})
    preset = Preset.objects.get()  # the same name, so the same preset
    assert preset.fields["sandbox_count"] == "5"
    other = Client()
    other.force_login(User.objects.create(username="ben"))
    assert other.post(f"{PAGE}/presets/{preset.pk}").status_code == 404
    assert other.get(f"{PAGE}?preset={preset.pk}").status_code == 404
    operator.post(f"{PAGE}/presets/{preset.pk}")
    assert not Preset.objects.exists()


def test_a_preflight_shows_each_step_or_its_remedy(
    operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [
        Step("key", 12.0, True),
        Step("create", 840.0, False, "429 quota <b>", "quota", "ask for a larger one"),
        Step("ready"),
    ]
    found = Preflight(False, "e2b", False, steps, {"cpus": 2.0, "memory_bytes": None})
    monkeypatch.setattr(new_run.preflight, "for_operator", lambda *_: found)
    fields = {"provider": "sim", "sandbox_count": "10"}
    said = operator.post(f"{PAGE}/preflight", fields).content.decode()
    assert "840 ms" in said
    assert "429 quota &lt;b&gt;" in said
    assert "Ask for a larger one." in said
    assert 'title="not reached"' in said
    assert 'href="/credentials/"' not in said
    steps[0] = Step("key", 12.0, False, "status 401", "auth", "check the key")
    said = operator.post(f"{PAGE}/preflight", fields).content.decode()
    assert 'Check the key. <a href="/credentials/">' in said
    wrong: dict[str, Any] = {"provider": "sim", "sandbox_count": "none"}
    said = operator.post(f"{PAGE}/preflight", wrong).content.decode()
    assert "No preflight: sandbox count" in said


def test_operators_only(client: Client, db: None) -> None:
    for path in ("", "/estimate"):
        assert "/sign-in" in client.get(f"{PAGE}{path}").headers["Location"]
    for path in ("/preflight", "/presets", "/presets/1"):
        assert "/sign-in" in client.post(f"{PAGE}{path}").headers["Location"]
