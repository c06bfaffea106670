from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from runs.errors import QueryError
from runs.models import Run

MakeRun = Callable[..., Run]
PAGE = "/runs/alpha-1/shards/3"


def body(client: Client, path: str, status: int = 200, **headers: Any) -> str:
    answer = client.get(path, **headers)
    assert answer.status_code == status
    return " ".join(answer.content.decode().split())


def test_a_shard_shows_its_sandboxes_and_its_log(
    operator: Client, make_run: MakeRun
) -> None:
    make_run()
    said = body(operator, PAGE)
    assert "sandboxes 300–399" in said
    assert 'id="sandbox-333"' in said
    assert 'id="L55"' in said
    assert "429 Too Many Requests" in said


def test_an_attempt_says_what_carried_it(operator: Client, make_run: MakeRun) -> None:
    run = make_run(published_at=timezone.now())
    machine = {"type": "t3.small", "zone": "eu-west-1a", "kernel": "6.1.0"}
    facts = {"hostname": "vm", "version": "0.1.0", "egress": "203.0.113.9"}
    run.hosts.update(facts={**facts, "machine": machine})
    said = body(operator, PAGE)
    assert "(t3.small, eu-west-1a, kernel 6.1.0, agent 0.1.0, from 203.0.113.9)" in said
    said = body(Client(), PAGE)
    assert "(t3.small, eu-west-1a, kernel 6.1.0, agent 0.1.0)" in said
    assert "203.0.113.9" not in said


def test_next_with_errors_skips_clean_shards(
    operator: Client, make_run: MakeRun
) -> None:
    make_run()
    said = body(operator, PAGE)
    assert 'data-next-troubled title="key e" href="/runs/alpha-1/shards/7"' in said
    assert "data-next-troubled" not in body(operator, "/runs/alpha-1/shards/9")


def test_a_sandbox_opens_its_events(operator: Client, make_run: MakeRun) -> None:
    make_run()
    said = body(operator, f"{PAGE}?sandbox=333")
    assert "Events of sandbox 333" in said
    assert "witness started" in said


def test_the_median_of_the_fleet_is_behind_the_health(
    operator: Client, make_run: MakeRun, record: ModuleType
) -> None:
    make_run()
    said = body(operator, PAGE)
    assert said.count('<polygon class="fleet"') == 3  # nobody told how many live
    assert "CPU: at most 90 %; the fleet’s median at most 14 %" in said
    assert "median of all 10 Shards" in said

    def unread(*_: Any) -> None:
        raise QueryError("no answer", code=0, retryable=True)

    # Once for all Shards, and a page without it is still a page.
    record.fleet_median = unread  # type: ignore[attr-defined]
    assert 'class="fleet"' in body(operator, "/runs/alpha-1/shards/4")
    cache.clear()
    said = body(operator, PAGE)
    assert "CPU: at most 90 %" in said
    assert 'class="fleet"' not in said


def test_two_shards_have_no_median(operator: Client, make_run: MakeRun) -> None:
    make_run(plan={"sandboxes_per_shard": 500})
    said = body(operator, "/runs/alpha-1/shards/1")
    assert "Loop lag: at most" in said
    assert 'class="fleet"' not in said


def test_outcomes_are_facets(operator: Client, make_run: MakeRun) -> None:
    make_run()
    said = body(operator, f"{PAGE}?outcome=partial")
    assert said.count('id="sandbox-') == 3


def test_the_log_is_searched_and_filtered(operator: Client, make_run: MakeRun) -> None:
    make_run()
    said = body(operator, f"{PAGE}?q=429&level=ERROR")
    assert 'id="L55"' in said
    assert 'id="L56"' not in said
    assert "No line matches" in body(operator, f"{PAGE}?q=nonsense")


def test_the_log_goes_on_after_its_cursor(operator: Client, make_run: MakeRun) -> None:
    make_run()
    assert "after=199" in body(operator, PAGE)
    said = body(operator, f"{PAGE}?after=499")
    assert 'id="L500"' in said
    assert 'id="L499"' not in said


def test_the_viewer_asks_for_an_index_and_for_windows(
    operator: Client, make_run: MakeRun
) -> None:
    make_run()
    assert operator.get(f"{PAGE}/log-index.json?q=x&level=error").json()["total"]
    window = operator.get(f"{PAGE}/log-window.json?first=40&limit=2").json()
    assert [line[0] for line in window["lines"]] == [40, 41]
    for bad in ("level=loud", "attempt=-1", "first=x", "limit=1e9"):
        assert operator.get(f"{PAGE}/log-window.json?{bad}").status_code == 400
    assert operator.get("/runs/alpha-1/shards/99/log-index.json").status_code == 404


def test_text_of_a_log_is_never_markup(operator: Client, make_run: MakeRun) -> None:
    make_run()
    said = body(operator, "/runs/alpha-1/log?q=<script>")
    assert "<script>" not in said.split("<main")[1]
    assert "&lt;b&gt;<mark>&lt;script&gt;</mark>&lt;/b&gt; &amp; more" in said
    assert "1 log line with “&lt;script&gt;”, in 1 Shard" in said
    assert "No line of any Shard has" in body(operator, "/runs/alpha-1/log?q=nothing")


def test_logs_and_hosts_are_public_only_where_they_were_published(
    make_run: MakeRun, client: Client
) -> None:
    published = {"published_at": timezone.now()}
    make_run(**published)
    make_run("beta-22", logs_published=True, **published)
    said = body(client, PAGE)
    assert "has not published the logs" in said
    assert "429 Too Many" not in said
    assert "on vm 0" not in said
    assert "on vm 0" in body(client, "/runs/beta-22/shards/3")
    for part in ("/log.txt", "/log-index.json", "/log-window.json"):
        assert client.get(f"{PAGE}{part}").status_code == 404
        assert client.get(f"/runs/beta-22/shards/3{part}").status_code == 200
    assert client.get("/runs/alpha-1/log").status_code == 404
    for part in ("/raw", "/shards/3/log", "/log?q=x"):
        assert client.get(f"/api/v1/runs/alpha-1{part}").status_code == 404


def test_the_log_is_downloaded_whole(operator: Client, make_run: MakeRun) -> None:
    make_run()
    answer = operator.get(f"{PAGE}/log.txt?level=ERROR")
    text = b"".join(answer.streaming_content).decode()  # type: ignore[attr-defined]
    assert text.count("\n") == text.count(" ERROR ") == 12


def test_what_was_never_recorded_has_a_page(
    operator: Client, make_run: MakeRun, record: ModuleType
) -> None:
    for name in ("shards", "shard_sandboxes", "health"):
        setattr(record, name, lambda *_: [])
    record.log = lambda *_, **__: {"lines": [], "next": None}  # type: ignore[attr-defined]
    make_run(state="arming", t0_us=None, t_hold_us=None, t_end_us=None)
    said = body(operator, PAGE)
    assert "Nothing has been recorded of this Shard yet" in said
    assert "No line has arrived yet" in said


def test_after_a_rebuild_the_record_says_what_carried_it(
    operator: Client, make_run: MakeRun
) -> None:
    run = make_run()
    run.attempts.all().delete()
    said = " ".join(body(operator, PAGE).split())
    assert "attempt 1 on vm-7 3" in said
    assert "t3.small, eu-west-1a, kernel 6.1, agent 0.1.0" in said


@pytest.mark.parametrize(
    "query",
    ["level=LOUD", "outcome=glorious", "sandbox=x", "attempt=-1", "page=1.5"],
)
def test_a_bad_filter_is_400(operator: Client, make_run: MakeRun, query: str) -> None:
    make_run()
    body(operator, f"{PAGE}?{query}", 400)


def test_a_shard_that_the_run_has_not_is_404(
    operator: Client, make_run: MakeRun
) -> None:
    make_run()
    body(operator, "/runs/alpha-1/shards/10", 404)
    body(operator, "/runs/nobody/shards/0", 404)


def test_a_page_costs_few_queries(
    operator: Client, make_run: MakeRun, django_assert_max_num_queries: Any
) -> None:
    make_run()
    with django_assert_max_num_queries(7):
        assert operator.get(PAGE).status_code == 200
