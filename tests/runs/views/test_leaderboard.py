from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest
from django.test import Client
from django.utils import timezone

from runs.models import Run, State
from tests.runs.factories import make_run

pytestmark = pytest.mark.django_db


def ranked(**changes: Any) -> Run:
    run = make_run(ranked=True, hold_s=60, probe_interval_s=5, witness=True)
    summary = {
        "outcomes": {"success": 30, "unobserved": 0, "not_attempted": 0},
        "held": {"proven": 30, "from_us": 0, "to_us": 1},
        "verdict": {"level": "VALID", "reasons": []},
        "latency": {"tti": {"p99_us": 500_000}},
        "labels": [],
        **changes,
    }
    Run.objects.filter(pk=run.pk).update(
        state=State.SEALED, launched_at=timezone.now(), summary=summary, ranked=True
    )
    return run


def test_an_empty_board_says_what_a_ranked_run_is(client: Client) -> None:
    assert (
        "No ranked Run in the last 30 days"
        in client.get("/leaderboard").content.decode()
    )


def test_every_ranked_launch_is_listed_and_says_whether_it_counts(
    operator: Client,
) -> None:
    good = ranked(observed={"connect_us": 2_100})
    suspect = ranked(verdict={"level": "SUSPECT", "reasons": []})
    page = operator.get("/leaderboard").content.decode()
    assert good.code in page
    assert suspect.code in page
    assert "1 / 2" in page
    assert "few runs" in page
    assert "connect 2.10 ms" in page
    assert page.count("Not counted") == 1


def test_a_stand_in_has_a_place_and_a_history_of_its_own(operator: Client) -> None:
    run, real = ranked(), ranked()
    for one, endpoint in ((run, "simcloud"), (real, "")):
        plan = {**one.plan, "provider": "e2b", "endpoint": endpoint or None}
        Run.objects.filter(pk=one.pk).update(plan=plan, provider="e2b")
    page = operator.get("/leaderboard").content.decode()
    assert "/providers/e2b?simulated=1" in page
    page = operator.get("/providers/e2b?simulated=1").content.decode()
    assert "e2b (simulated) over time" in page
    assert run.code in page
    assert real.code not in page
    assert run.code not in operator.get("/providers/e2b").content.decode()


def published(run: Run) -> Run:
    Run.objects.filter(pk=run.pk).update(published_at=timezone.now())
    return run


def test_strangers_see_what_is_published_and_count_the_rest(client: Client) -> None:
    shown, hidden = published(ranked()), ranked()
    page = client.get("/leaderboard").content.decode()
    assert shown.code in page
    assert hidden.code not in page
    assert "2 / 2" in page  # both count, one is shown
    assert "1 not published: 1 counts" in page
    told = client.get("/api/v1/leaderboard").json()["items"][0]
    assert [run["code"] for run in told["items"][0]["runs"]] == [shown.code]
    Run.objects.update(published_at=None)
    page = client.get("/leaderboard").content.decode()
    assert "2 ranked launches at providers of which nothing is published" in page
    assert client.get(f"/providers/{shown.provider}").status_code == 404


def test_filters_stand_in_the_address(operator: Client) -> None:
    run = ranked()
    page = operator.get(f"/leaderboard?provider={run.provider}").content.decode()
    assert run.code in page
    page = operator.get("/leaderboard?provider=nobody").content.decode()
    assert "Nothing is ranked under this filter" in page
    assert operator.get("/leaderboard?class=nothing").status_code == 200


def test_the_card_is_a_picture_of_what_is_published(client: Client) -> None:
    run = ranked()
    card = client.get("/leaderboard/card.svg")
    assert card.headers["Content-Type"] == "image/svg+xml"
    assert "Nothing is published in this class" in card.content.decode()
    published(run)
    text = client.get("/leaderboard/card.svg").content.decode()
    assert ElementTree.fromstring(text).tag.endswith("svg")
    assert f">{run.provider}<" in text
    assert "1/1" in text


def test_a_provider_has_a_history(operator: Client) -> None:
    run = ranked()
    page = operator.get(f"/providers/{run.provider}").content.decode()
    assert "1 ranked launch<" in page
    assert "<circle" in page
    assert operator.get("/providers/nobody").status_code == 404


def test_newly_published_runs_are_a_feed(client: Client) -> None:
    run, hidden = published(ranked(labels=["simulated"])), ranked()
    answer = client.get("/runs.atom")
    assert answer.headers["Content-Type"].startswith("application/atom+xml")
    feed, atom = ElementTree.fromstring(answer.content), "{http://www.w3.org/2005/Atom}"
    assert feed.findtext(f"{atom}author/{atom}name") == "Holdfast"
    assert len(feed.findall(f"{atom}entry")) == 1
    run.refresh_from_db()
    Run.objects.update(summary={**(run.summary or {}), "labels": ["quota-bound"]})
    assert "(quota-bound)</title>" in client.get("/runs.atom").content.decode()
    text = answer.content.decode()
    assert f"/runs/{run.code}" in text
    assert " (simulated)</title>" in text
    assert hidden.code not in text
