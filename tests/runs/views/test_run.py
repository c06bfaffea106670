from __future__ import annotations

import html
import inspect
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from runs import lifecycle, results
from runs.errors import QueryError
from runs.models import Run
from runs.overhead import overhead_of
from runs.views import run_chart

MakeRun = Callable[..., Run]


def body(client: Client, path: str, status: int = 200, **headers: Any) -> str:
    answer = client.get(path, **headers)
    assert answer.status_code == status
    return " ".join(answer.content.decode().split())


def test_a_sealed_run_says_what_was_held(operator: Client, make_run: MakeRun) -> None:
    make_run()
    said = body(operator, "/runs/alpha-1")
    assert "At least 990 of 1,000 sandboxes were alive together" in said
    assert "for the whole 20 s hold" in said
    assert "The target of 1,000 was missed by 10; the peak was 99" in said
    assert "± 5.30 ms" in said
    assert '<a href="/runs/alpha-1/sandboxes' in said
    assert "not reached" in said  # time to 100 %


def test_the_parts_of_the_page_are_listed_on_top(
    operator: Client, make_run: MakeRun
) -> None:
    make_run()
    said = body(operator, "/runs/alpha-1")
    jump = said.partition('aria-label="On this page">')[2].partition("</nav>")[0]
    parts = re.findall(r'href="#(\w+)"', jump)
    assert {"curve", "latency", "verdict", "shards"} <= set(parts)
    assert all(f'<h2 id="{part}"' in said for part in parts)


def test_suspect_stands_with_the_number(operator: Client, make_run: MakeRun) -> None:
    make_run(level="SUSPECT")
    said = body(operator, "/runs/alpha-1")
    heading = said[said.index("<h1>") : said.index("</h1>")]
    assert ">990</a> of 1,000" in heading
    assert "SUSPECT" in heading


def test_an_invalid_run_is_no_result(operator: Client, make_run: MakeRun) -> None:
    make_run(level="INVALID")
    said = body(operator, "/runs/alpha-1")
    heading = said[said.index("<h1>") : said.index("</h1>")]
    assert "990" not in heading
    assert "cannot be ruled out" in heading
    assert "<button disabled>Publish</button>" in said


def test_defects_are_listed_with_key_and_line(
    operator: Client, make_run: MakeRun
) -> None:
    run = make_run()
    assert "Defects of the raw record" not in body(operator, "/runs/alpha-1")
    assert run.summary is not None
    Run.objects.filter(pk=run.pk).update(summary=run.summary | {"defects": 2})
    said = body(operator, "/runs/alpha-1")
    assert "2 places of the record were not" in said
    key = "runs/alpha-1/shards/00003/00/events-000002.ndjson.zst"
    assert f'<code>{key}</code></td><td class="number">17</td>' in said
    assert "&lt;b&gt;oops" in said
    assert "t0 us disagrees" in said


def test_both_extremes_of_what_the_harness_lost_are_shown(
    operator: Client, make_run: MakeRun
) -> None:
    make_run()  # one of its thousand is unobserved
    said = body(operator, "/runs/alpha-1")
    assert "both extremes of what was lost" in said
    assert ">320 ms to 322 ms</a>" in said  # P50 of creates
    assert ">963 ms to not reached</a>" in said  # their P99


def test_strangers_see_what_a_bad_line_says_only_where_logs_are_published(
    client: Client, make_run: MakeRun
) -> None:
    """It is raw record, and may name hosts and addresses."""
    run = make_run(published_at=timezone.now())
    assert run.summary is not None
    Run.objects.filter(pk=run.pk).update(summary=run.summary | {"defects": 2})
    said = body(client, "/runs/alpha-1")
    assert "events-000002.ndjson.zst" in said
    assert "oops" not in said
    Run.objects.filter(pk=run.pk).update(logs_published=True)
    assert "oops" in body(client, "/runs/alpha-1")


CERTIFICATE = {
    "clean": True,
    "instants": 900,
    "compared": 990,
    "proven_over_truth": 0,
    "truth_over_possible": 0,
    "sandboxes_over_truth": 0,
    "sandboxes_over_possible": 0,
    "sleepers": 4,
    "sleepers_missed": 0,
    "misclassified": 0,
    "create_error": {"p50_us": 90, "p99_us": 900},
    "ready_error": {"p50_us": 90, "p99_us": 900},
}


@pytest.mark.parametrize(
    "broken",
    [
        "proven_over_truth",
        "sandboxes_over_possible",
        "sleepers_missed",
        "misclassified",
    ],
)
def test_a_certificate_that_is_not_clean_says_so(
    operator: Client, make_run: MakeRun, broken: str
) -> None:
    run = make_run()
    assert run.summary is not None
    for changes in ({}, {"clean": False, broken: 3}):
        summary = run.summary | {"certificate": CERTIFICATE | changes}
        Run.objects.filter(pk=run.pk).update(summary=summary)
        said = body(operator, "/runs/alpha-1")
        assert ("contradicts the simulated world" in said) == bool(changes)


@pytest.mark.parametrize("path", ["/", "/runs", "/compare", "/runs/alpha-1/summary.md"])
def test_its_words_stand_wherever_the_number_does(
    operator: Client, make_run: MakeRun, path: str
) -> None:
    run = make_run(level="SUSPECT")
    assert run.summary is not None
    said_of_it = ["simulated", "answers on demand", "quota-bound"]
    Run.objects.filter(pk=run.pk).update(summary=run.summary | {"labels": said_of_it})
    said = body(operator, path)
    for word in ("SUSPECT", *said_of_it):
        assert word in said, word


def test_a_run_cut_short_says_so(operator: Client, make_run: MakeRun) -> None:
    run = make_run(end_reason="aborted", end_detail="aborted by anna")
    assert run.summary is not None
    Run.objects.filter(pk=run.pk).update(summary=run.summary | {"held": None})
    said = body(operator, "/runs/alpha-1")
    assert "Aborted before the hold" in said
    assert "aborted by anna" in said


@pytest.mark.parametrize(
    "state",
    ["draft", "queued", "provisioning", "arming", "bursting", "holding"]
    + ["tearing_down", "collecting", "sealed"],
)
def test_every_state_has_a_page(
    operator: Client, make_run: MakeRun, state: str
) -> None:
    early = state in ("draft", "queued", "provisioning", "arming")
    none = dict.fromkeys(("t0_us", "t_hold_us", "t_end_us", "t_destroy_us"))
    make_run(state=state, **(none if early else {}))
    said = body(operator, "/runs/alpha-1")
    assert ("data-live=" not in said) == (state == "sealed")


def test_a_run_that_left_nothing_has_a_page(
    operator: Client, make_run: MakeRun, record: ModuleType
) -> None:
    for name in ("causes", "shards"):
        setattr(record, name, lambda run: [])
    record.latency = lambda run: {}  # type: ignore[attr-defined]
    none = dict.fromkeys(("t0_us", "t_hold_us", "t_end_us", "t_destroy_us"))
    make_run(summary={"held": None, "peak": None}, **none)
    assert "No hold was measured" in body(operator, "/runs/alpha-1")
    assert "why" in body(operator, "/runs/alpha-1/chart")


def test_anonymous_sees_published_runs_only(make_run: MakeRun, client: Client) -> None:
    make_run("alpha-1")
    make_run("beta-22", published_at=timezone.now())
    make_run("gamma-3", state="holding", published_at=timezone.now())
    for part in ("", "/chart", "/summary.md", "/shards/0", "/sandboxes"):
        assert client.get(f"/runs/alpha-1{part}").status_code == 404
        assert client.get(f"/runs/gamma-3{part}").status_code == 404
        assert client.get(f"/runs/beta-22{part}").status_code == 200
    assert "Publish" not in body(client, "/runs/beta-22")


def test_an_unknown_code_is_404(operator: Client) -> None:
    said = body(operator, "/runs/nobody", 404)
    assert "There is nothing at this address" in said


def test_the_page_stands_while_clickhouse_is_away(
    operator: Client, make_run: MakeRun, record: ModuleType
) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise QueryError("gone", retryable=True)

    for name in ("latency", "causes", "shards", "curve", "log", "health"):
        setattr(record, name, away)
    make_run()
    said = body(operator, "/runs/alpha-1")
    assert "At least 990" in said
    assert "cannot be read now" in said
    assert "cannot be read now" in body(operator, "/runs/alpha-1/chart")
    assert "cannot be read now" in body(operator, "/runs/alpha-1/shards/3")


def test_a_picture_of_a_doubtful_run_says_so(
    operator: Client, make_run: MakeRun
) -> None:
    make_run()
    make_run("beta-22", level="SUSPECT")
    for code, doubtful in (("alpha-1", False), ("beta-22", True)):
        figure = operator.get(f"/runs/{code}/chart").json()
        said = figure["layout"]["xaxis"]["title"]["text"]
        assert ("SUSPECT" in said) == doubtful
    figure = operator.get("/compare/chart?runs=alpha-1,beta-22").json()
    names = [trace["name"] for trace in figure["data"]]
    assert names == ["A alpha-1", "B beta-22 (SUSPECT)"]


def test_the_chart_has_the_four_lines(operator: Client, make_run: MakeRun) -> None:
    make_run()
    figure = operator.get("/runs/alpha-1/chart").json()
    assert {trace["name"] for trace in figure["data"]} == {
        "proven",
        "possible",
        "implied",
    }
    assert figure["layout"]["shapes"][0]["name"] == "target"
    deaths = operator.get("/runs/alpha-1/chart?of=deaths").json()
    assert deaths["data"][1]["name"] == "dead"


@pytest.mark.parametrize("of", ["curve", "deaths", "size", "submission", "start"])
def test_every_point_of_a_chart_leads_somewhere(
    operator: Client, make_run: MakeRun, of: str
) -> None:
    make_run()
    figure = operator.get(f"/runs/alpha-1/chart?of={of}&phase=create").json()
    for trace in figure["data"]:
        assert len(trace["customdata"]) == len(trace["x"])
        for what in (trace["customdata"][0], trace["customdata"][-1]):
            address = trace["meta"]["click"] + what
            assert operator.get(address).status_code == 200, address


def test_every_number_leads_to_its_definition_and_its_rows(
    operator: Client, make_run: MakeRun
) -> None:
    make_run()
    said = operator.get("/runs/alpha-1").content.decode()
    anchors = set(re.findall(r'href="/methodology#([\w-]+)"', said))
    defined = operator.get("/methodology").content.decode()
    assert {"held", "curve", "clocks", "start", "latency", "outcomes"} <= anchors
    assert all(f'id="{anchor}"' in defined for anchor in anchors)
    rows = set(re.findall(r'href="(/runs/alpha-1/s(?:andboxes|hards)\?[^"]*)"', said))
    assert len(rows) > 30
    for address in rows:
        assert operator.get(html.unescape(address)).status_code == 200, address


def test_the_provenance_card_says_what_carried_the_run(
    operator: Client, make_run: MakeRun
) -> None:
    run = make_run()
    fleet = {
        "types": {"c5.large": 1, "t3.small": 9},
        "zones": {"eu-west-1a": 10},
        "kernels": {"6.1.0": 10},
        "versions": {"0.1.0": 10},
        "egress_addresses": 4,
        "shared_egress": 7,
        "provisioned": {
            "asked": 12,
            "granted": 10,
            "reasons": {"no capacity": 2},
            "usd_per_h": 60,
        },
        "provision_s": 4,
        "arm_s": 8,
        "launch_to_armed_s": 12,
    }
    Run.objects.filter(pk=run.pk).update(summary={**run.summary, "fleet": fleet})
    said = body(operator, "/runs/alpha-1")
    for text in (
        "mixed: 1 × c5.large, 9 × t3.small",
        "10 of 12; 2 not: no capacity",
        "10 × eu-west-1a",
        "10 × 6.1.0",
        "10 × 0.1.0",
        "4; Shards that share one with another: 7",
        "12 s (machines 4 s, arming 8 s)",
        "about $1.02 at $60.00 an hour, by list price",  # 12 s + 49.06 s
    ):
        assert text in said


def test_the_provenance_card_says_what_is_missing_and_why(
    operator: Client, make_run: MakeRun
) -> None:
    make_run()
    said = body(operator, "/runs/alpha-1")
    assert "Spec observed</dt><dd><abbr" in said
    assert "the sandboxes did not say what they were given" in said
    assert "Clock bound</dt>" in said
    assert "make bench has no figure for this provider and transport" in said


def test_the_card_says_what_our_own_client_is_known_to_add(
    operator: Client, make_run: MakeRun
) -> None:
    make_run(provider="e2b", plan={"provider": "e2b", "endpoint": "simcloud"})
    known = overhead_of("e2b", "thin")
    assert known is not None
    said = body(operator, "/runs/alpha-1")
    assert f"adds about {known.p99_ms:.3g} ms at P99" in said
    assert f"at 100 concurrent, measured by make bench on {known.measured}" in said


def test_a_live_curve_ends_where_the_sandboxes_have_answered(
    operator: Client, make_run: MakeRun
) -> None:
    make_run(state="holding", plan={"probe_interval_s": 3, "flush_interval_s": 2})
    figure = operator.get("/runs/alpha-1/chart").json()
    assert 40 < max(figure["data"][0]["x"]) <= 41
    told = next(trace for trace in figure["data"] if trace["meta"].get("told"))
    proven = next(trace for trace in figure["data"] if trace["name"] == "proven")
    assert (told["x"], told["y"]) == (proven["x"][-1:], proven["y"][-1:])
    assert figure["layout"]["xaxis"]["range"][1] > 41  # the page draws on, to now


def test_a_curve_without_answers_begins_with_nothing(
    operator: Client, make_run: MakeRun, record: ModuleType
) -> None:
    run = make_run(state="bursting", t_hold_us=None, t_end_us=None)
    record.curve = lambda *_, **__: None  # type: ignore[attr-defined]
    figure = operator.get("/runs/alpha-1/chart").json()
    assert {tuple(trace["y"]) for trace in figure["data"]} == {(0,)}
    cache.clear()
    Run.objects.update(t0_us=lifecycle.now_us(run) + 3_000_000)
    said = operator.get("/runs/alpha-1/chart").json()["why"]
    assert said == "The curve begins with the burst."


def test_a_staircase_is_drawn_with_what_each_step_held(
    operator: Client, make_run: MakeRun
) -> None:
    load = {"shape": "staircase", "steps": 4, "step_s": 5.0}
    run = make_run(plan={"load": load})
    steps = [
        {"step": n + 1, "target": 250 * (n + 1), "held": held}
        | {"from_us": run.t0_us + 5_000_000 * n, "to_us": run.t0_us + 5_000_000 * n + 2}
        for n, held in enumerate((250, 498, None, 990))
    ]
    steps[2] |= {"from_us": None, "to_us": None}
    run.summary["steps"] = steps
    run.save(update_fields=["summary"])
    planned, held = operator.get("/runs/alpha-1/chart").json()["data"][3:]
    assert planned["x"][:4] == [0, 5, 10, 15]
    assert planned["y"] == [250, 500, 750, 1_000, 1_000]
    assert held["y"] == [250, 498, 990]
    assert held["x"] == pytest.approx([0, 5, 15], abs=0.01)


@pytest.mark.parametrize("query", ["of=lies", "clock=sundial"])
def test_a_bad_chart_is_400(operator: Client, make_run: MakeRun, query: str) -> None:
    make_run()
    body(operator, f"/runs/alpha-1/chart?{query}", 400)


def test_the_summary_is_markdown(operator: Client, make_run: MakeRun) -> None:
    make_run()
    answer = operator.get("/runs/alpha-1/summary.md")
    assert answer.headers["Content-Type"].startswith("text/markdown")
    assert answer.content.decode().startswith("# sim: At least 990 of 1,000")


def test_what_changes_a_run_needs_an_operator_and_a_post(
    operator: Client, make_run: MakeRun, client: Client
) -> None:
    make_run(state="draft", launched_at=None)
    assert operator.get("/runs/alpha-1/launch").status_code == 405
    assert "/sign-in" in client.post("/runs/alpha-1/launch").headers["Location"]
    operator.post("/runs/alpha-1/launch")
    assert Run.objects.get().state == "queued"
    operator.post("/runs/alpha-1/abort")
    assert Run.objects.get().end_reason == "aborted"


def test_an_action_that_does_not_fit_says_why(
    operator: Client, make_run: MakeRun
) -> None:
    make_run(level="INVALID")
    answer = operator.post("/runs/alpha-1/publish", follow=True)
    assert "INVALID" in answer.content.decode()
    assert Run.objects.get().published_at is None


def test_a_page_costs_few_queries(
    operator: Client, make_run: MakeRun, django_assert_max_num_queries: Any
) -> None:
    make_run()
    with django_assert_max_num_queries(6):
        assert operator.get("/runs/alpha-1").status_code == 200
    make_run("beta-22", state="holding")
    with django_assert_max_num_queries(15):
        first = operator.get("/runs/beta-22/live.json")
    with django_assert_max_num_queries(3):  # of whoever else watches
        again = operator.get("/runs/beta-22/live.json")
    assert first.json() == again.json()


def test_the_stand_in_is_asked_like_the_real_thing(record: ModuleType) -> None:
    for name, real in inspect.getmembers(results, inspect.isfunction):
        fake = getattr(record, name, None)
        if fake is None or name.startswith("_"):
            continue
        asked = inspect.signature(fake).parameters
        assert set(asked) <= set(inspect.signature(real).parameters), name


@pytest.mark.parametrize(
    ("figure", "took_s", "kept_s"),
    [
        ({"why": "The curve begins with the burst."}, 1.0, 2.0),
        ({"data": [{"x": [0]}]}, 1.0, 2.0),
        ({"data": [{"x": [0, 1]}]}, 0.01, 2.0),
        ({"data": [{"x": [0, 1]}]}, 0.045, 6.0),
        ({"data": [{"x": [0, 1]}]}, 3.0, 10.0),
    ],
)
def test_a_dear_live_curve_is_drawn_less_often_and_never_waited_for(
    figure: dict[str, Any], took_s: float, kept_s: float
) -> None:
    assert run_chart.live_kept_s(figure, took_s) == pytest.approx(kept_s)
