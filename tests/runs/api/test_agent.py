"""/agent/v1: its own token, fenced by host."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from runs import hosts
from runs.models import Attempt, Run, State
from tests.runs.factories import make_arming_run, make_beat, make_request

pytestmark = pytest.mark.django_db(transaction=True)


def call(
    client: Client, run: Run, host: int, name: str, body: Any, token: str = ""
) -> Any:
    bearer = token or hosts.token_of(run.code, host)
    return client.post(
        f"/agent/v1/{name}",
        body,
        content_type="application/json",
        headers={"Authorization": f"Bearer {bearer}"},
    )


def registration(run: Run, host: int) -> dict[str, Any]:
    return {"run": run.code, "host": host, "pid": 7, "hostname": "vm", "version": "0"}


def make_world(run: Run) -> None:
    Run.objects.filter(pk=run.pk).update(world={"address": "x:1", "secret": "s" * 8})


def test_a_host_learns_its_plan_and_shards(client: Client) -> None:
    run = make_arming_run()
    make_world(run)
    answer = call(client, run, 1, "register", registration(run, 1)).json()
    assert answer["shards"] == [{"shard": 1, "attempt": 0}]
    assert answer["plan"]["code"] == run.code
    assert answer["clock_id"] == run.clock_id
    assert "secret" not in str(answer["plan"])


def test_the_token_of_another_host_is_refused(client: Client) -> None:
    run = make_arming_run()
    other = hosts.token_of(run.code, 2)
    assert (
        call(client, run, 1, "register", registration(run, 1), other).status_code == 401
    )


def test_a_heartbeat_has_four_timestamps_in_order(client: Client) -> None:
    run = make_arming_run()
    body = make_request(run, 0, make_beat(0)).model_dump(mode="json")
    answer = call(client, run, 0, "heartbeat", body).json()
    assert answer["t2_us"] <= answer["t3_us"]
    assert answer["clock_id"] == run.clock_id
    assert answer["interval_s"] == 1.0
    assert Attempt.objects.get(run=run, shard=0).heard_at_us == answer["t2_us"]


def test_a_sealed_run_hears_nobody(client: Client) -> None:
    run = make_arming_run()
    Run.objects.filter(pk=run.pk).update(state=State.SEALED)
    body = make_request(run, 0, make_beat(0)).model_dump(mode="json")
    assert call(client, run, 0, "heartbeat", body).status_code == 409


def test_upload_urls_are_for_the_hosts_own_keys_only(client: Client) -> None:
    run = make_arming_run()
    wish = {"shard": 0, "attempt": 0, "kind": "events", "first_seq": 3, "count": 2}
    asked = {"run": run.code, "host": 0, "wishes": [wish]}
    given = call(client, run, 0, "urls", asked).json()["urls"]
    assert [url["seq"] for url in given] == [3, 4]
    assert (
        f"/runs/{run.code}/shards/00000/00/events-000003.ndjson.zst?" in given[0]["url"]
    )
    stolen = {**asked, "wishes": [{**wish, "shard": 1}]}
    assert call(client, run, 0, "urls", stolen).status_code == 403


def test_another_protocol_is_told_which_one_is_spoken(client: Client) -> None:
    run = make_arming_run()
    answer = call(client, run, 0, "register", {**registration(run, 0), "protocol": 99})
    assert answer.status_code == 422
    assert "protocol 1" in answer.json()["detail"]
