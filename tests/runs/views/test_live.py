from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from django.conf import settings
from django.core.cache import cache
from django.test import Client

from runs import lifecycle
from runs.clickhouse import client as client_of_clickhouse
from runs.errors import QueryError
from runs.models import Attempt, Run
from shardagent.errors import Cause

MakeRun = Callable[..., Run]
LIVE = "/runs/alpha-1/live.json"
WIRE_BYTES_MAX = 12_000  # of one poll, compressed, with 1,000 Shards


def hear(run: Run, shard: int, **fields: Any) -> None:
    heard = {"phase": "settled", "heard_at_us": lifecycle.now_us(run)}
    fields = {**heard, "alive": 100, "ready": 100, **fields}
    Attempt.objects.filter(run=run, shard=shard).update(**fields)


def test_the_grid_is_a_letter_a_shard(operator: Client, make_run: MakeRun) -> None:
    run = make_run(state="holding")
    long_ago = lifecycle.now_us(run) - 60_000_000
    hear(run, 0)
    hear(run, 1, alive=98, dead=2)
    hear(run, 2, alive=60, ready=60, failed=40)
    hear(run, 3, heard_at_us=long_ago)
    hear(run, 4, lost_at_us=long_ago)
    hear(run, 5, phase="bursting", ready=40)
    hear(run, 6, phase="armed", ready=0, sent=0)
    told = operator.get(LIVE).json()
    assert told["tones"] == "csmqlpawww"
    assert told["says"][2] == "settled, 60 alive, 40 failed or died"
    assert "are being held" in told["head"]
    assert 'href="/runs/alpha-1/shards/3"' in told["agents"]  # silent, and named
    page = operator.get("/runs/alpha-1").content.decode()
    assert 'class="cell silent" aria-label="Shard 3: silent' in page


def test_what_agents_tell_is_of_those_that_are_heard(
    operator: Client, make_run: MakeRun
) -> None:
    run = make_run(state="holding")
    now = lifecycle.now_us(run)
    hear(run, 0, alive=90)
    hear(run, 1, alive=80, heard_at_us=now - 1_000_000)
    hear(run, 2, alive=70, heard_at_us=now - 60_000_000)  # silent
    hear(run, 3, alive=60, lost_at_us=now)
    alive = operator.get(LIVE).json()["alive"]
    assert alive["count"] == 170
    assert alive["at_s"] == pytest.approx((now - 500_000 - run.t0_us) / 1e6, abs=0.2)


def test_nobody_tells_of_sandboxes_before_the_burst(
    operator: Client, make_run: MakeRun
) -> None:
    run = make_run(state="bursting", t_hold_us=None, t_end_us=None)
    hear(run, 0)
    Run.objects.update(t0_us=lifecycle.now_us(run) + 3_000_000)
    assert operator.get(LIVE).json()["alive"] is None


def test_a_second_look_costs_nothing_where_nothing_changed(
    operator: Client, make_run: MakeRun
) -> None:
    make_run(state="queued", **dict.fromkeys(("t0_us", "t_hold_us", "t_end_us")))
    first = operator.get(LIVE)
    again = operator.get(LIVE, headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304
    assert again.content == b""


def test_many_watchers_cost_one(
    operator: Client, make_run: MakeRun, django_assert_num_queries: Any
) -> None:
    make_run(state="holding")
    first = operator.get(LIVE)
    with django_assert_num_queries(0):
        again = operator.get(LIVE)
    assert first.json() == again.json()


@pytest.mark.parametrize("state", ["provisioning", "arming", "bursting", "collecting"])
def test_every_phase_says_what_it_waits_for_and_how_long(
    operator: Client, make_run: MakeRun, state: str
) -> None:
    early = state in ("provisioning", "arming")
    none = dict.fromkeys(("t0_us", "t_hold_us", "t_end_us", "t_destroy_us"))
    run = make_run(state=state, **(none if early else {}))
    Run.objects.filter(pk=run.pk).update(state_at_us=lifecycle.now_us(run))
    head = operator.get(LIVE).json()["head"]
    awaited = head[head.index('class="awaited"') :].split("</p>")[0]
    assert "in " in awaited
    assert 'aria-current="step"' in head


def test_a_thousand_shards_stay_small(operator: Client, make_run: MakeRun) -> None:
    plan = {"sandbox_count": 100_000, "load": {"shape": "burst"}, "world": {}}
    run = make_run(state="holding", plan=plan)
    assert run.attempts.count() == 1_000
    for shard in range(0, 1_000, 3):
        hear(run, shard, dead=shard % 7)
    answer = operator.get(LIVE)
    assert len(answer.json()["tones"]) == len(answer.json()["says"]) == 1_000
    assert len(zlib.compress(answer.content, 6)) < WIRE_BYTES_MAX


def test_the_live_page_asks_the_record_for_nothing(
    operator: Client, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise QueryError("gone", retryable=True)

    monkeypatch.setattr(client_of_clickhouse, "query_rows", away)
    run = make_run(state="holding")
    hear(run, 2, loop_lag_us=12_000, cpu_pct=41.5, in_flight=7)
    agents = operator.get(LIVE).json()["agents"]
    assert "12.0 ms at most lately" in agents
    assert "7 calls" in agents


def test_failures_are_shown_as_soon_as_they_are_told(
    operator: Client, make_run: MakeRun
) -> None:
    run = make_run(state="holding")
    assert "None so far" in operator.get(LIVE).json()["agents"]
    hear(run, 2, failed=3)
    cache.clear()
    untold = operator.get(LIVE).json()["agents"]
    assert "3 failed or died, and their agents do not tell why" in untold
    assert "None so far" not in untold
    end = {"kind": "create_failed", "cause": "quota", "origin": "provider"}
    ends = [{**end, "count": 40, "sandbox": 203, "message": "<b>no more</b>"}]
    for cause in list(Cause)[:9]:  # more than the page has room for
        example = {"count": 1, "sandbox": 299, "message": ""}
        ends.append({**end, "kind": "dead", "cause": cause, **example})
    hear(run, 2, alive=51, failed=40, dead=9, causes=orjson.dumps(ends).decode())
    cache.clear()
    told = operator.get(LIVE).json()
    assert "&lt;b&gt;no more&lt;/b&gt;" in told["agents"]
    assert "?outcome=failed&amp;cause=quota" in told["agents"]
    assert "2 more, of other causes" in told["agents"]
    assert "None so far" not in told["agents"]
    said = " ".join(told["head"].split())
    assert "partial 9, readiness failed 0, failed 40" in said
    assert "together 1000" in said


def test_an_abort_is_asked_for_once(operator: Client, make_run: MakeRun) -> None:
    make_run(state="holding")
    assert operator.get(LIVE).json()["abortable"]
    Run.objects.update(end_reason="aborted")
    cache.clear()
    assert not operator.get(LIVE).json()["abortable"]
    page = operator.get("/runs/alpha-1").content.decode()
    assert "data-abort hidden" in page
    assert "not known yet" in page  # what only a sealed Run knows


def test_strangers_see_nothing_live(
    make_run: MakeRun, client: Client, operator: Client
) -> None:
    make_run(state="holding")
    assert operator.get(LIVE).status_code == 200  # and it is kept
    assert client.get(LIVE).status_code == 404


def test_who_signs_out_is_soon_a_stranger(operator: Client, make_run: MakeRun) -> None:
    make_run(state="holding")
    assert operator.get(LIVE).status_code == 200
    cookie = operator.cookies[settings.SESSION_COOKIE_NAME].value
    operator.logout()
    operator.cookies[settings.SESSION_COOKIE_NAME] = cookie  # somebody kept it
    cache.clear()  # as it is after WATCHER_KNOWN_S
    assert operator.get(LIVE).status_code == 404


@pytest.mark.parametrize("code", ["nobody", "No body", "x" * 300])
def test_no_run_is_not_kept(operator: Client, code: str) -> None:
    for _ in range(2):
        assert operator.get(f"/runs/{code}/live.json").status_code == 404
