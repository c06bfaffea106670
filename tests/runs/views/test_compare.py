from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from runs import comparison
from runs.models import Run

MakeRun = Callable[..., Run]


def body(client: Client, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status
    return " ".join(answer.content.decode().split())


def test_differing_plan_fields_come_first(operator: Client, make_run: MakeRun) -> None:
    make_run()
    make_run("beta-22", plan={"hold_s": 40})
    said = body(operator, "/compare?runs=alpha-1,beta-22")
    assert "alpha-1 beside beta-22" in said
    plans, curves = said.index('id="plans"'), said.index('id="curves"')
    assert plans < said.index(">hold s<") < curves
    assert "<code>20.0</code>" in said
    assert "<code>40.0</code>" in said
    figure = operator.get("/compare/chart?runs=alpha-1,beta-22").json()
    assert [trace["name"] for trace in figure["data"]] == ["A alpha-1", "B beta-22"]
    assert max(figure["data"][0]["y"]) <= 100


def test_like_with_like_says_so(operator: Client, make_run: MakeRun) -> None:
    make_run()
    make_run("beta-22")
    assert "like is compared with like" in body(
        operator, "/compare?runs=alpha-1&runs=beta-22"
    )


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("", 200, "Choose 2 to 6 sealed Runs"),
        ("?runs=alpha-1", 400, "Choose 2 to 6"),
        ("?runs=alpha-1,nobody", 400, "There is no Run nobody"),
        ("?runs=alpha-1,live-1", 400, "live-1 is not sealed yet"),
        ("?runs=a,b,c,d,e,f,g", 400, "At most 6"),
    ],
)
def test_what_cannot_be_compared_says_why(
    operator: Client, make_run: MakeRun, query: str, status: int, said: str
) -> None:
    make_run()
    make_run("live-1", state="holding")
    assert said in body(operator, f"/compare{query}", status)


def test_strangers_compare_what_is_published(client: Client, make_run: MakeRun) -> None:
    make_run(published_at=timezone.now())
    make_run("beta-22")
    assert "There is no Run beta-22" in body(
        client, "/compare?runs=alpha-1,beta-22", 400
    )


def run_json(proven: int, by_host: list[list[int]]) -> dict[str, Any]:
    outcomes = dict.fromkeys(comparison.OUTCOMES, 0) | {"success": proven}
    return {
        "code": f"run-{proven}",
        "outcomes": outcomes | {"total": 1_000},
        "held": {"proven": proven, "by_host": by_host},
        "plan": {"target": 1_000},
    }


def test_a_difference_is_beyond_the_intervals_or_within() -> None:
    first = run_json(990, [[10, 10, 95], [8, 10, 5]])
    near = run_json(988, [[10, 10, 94], [8, 10, 6]])
    far = run_json(800, [[8, 10, 100]])
    row = comparison.held_rows([first, near, far])[0]
    assert [cell["beyond"] for cell in row["cells"]] == [None, False, True]
    assert [cell["difference"] for cell in row["cells"]] == [
        "",
        "−0.2 points",
        "−19.0 points",
    ]


def test_few_hosts_have_no_interval() -> None:
    rows = comparison.held_rows(
        [run_json(99, [[10, 10, 10]]), run_json(90, [[9, 10, 10]])]
    )
    assert [cell["beyond"] for cell in rows[0]["cells"]] == [None, None]


def test_latency_intervals_that_do_not_overlap_are_marked() -> None:
    def table(p99: int, low: int, high: int) -> dict[str, Any]:
        return {"tti": {"p99_us": p99, "ci95": {"p99_us": [low, high]}}}

    tables = [table(500, 480, 520), table(510, 490, 530), table(900, 800, 990)]
    (row,) = comparison.latency_rows(tables, ["a", "b", "c"])
    assert row["name"] == "tti P99"
    assert [cell["beyond"] for cell in row["cells"]] == [None, False, True]
    assert row["cells"][2]["difference"] == "+80.0 %"
