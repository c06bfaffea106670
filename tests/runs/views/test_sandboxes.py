from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from django.test import Client

from runs.errors import QueryError
from runs.models import Run

MakeRun = Callable[..., Run]
PAGE = "/runs/alpha-1/sandboxes"


def body(client: Client, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status
    return " ".join(answer.content.decode().split())


def test_the_filter_is_said_as_a_sentence(operator: Client, make_run: MakeRun) -> None:
    make_run()
    assert "<h1>All 1,000 sandboxes</h1>" in body(operator, PAGE)
    said = body(operator, f"{PAGE}?outcome=partial&shard=3")
    assert "3 of 1,000 sandboxes that died before the teardown, of Shard 3" in said


def test_facets_and_headings_keep_the_other_conditions(
    operator: Client, make_run: MakeRun
) -> None:
    make_run()
    said = body(operator, f"{PAGE}?outcome=partial&q=gone&sort=-tti")
    assert 'href="?outcome=partial&amp;cause=timeout&amp;q=gone&amp;sort=-tti"' in said
    assert 'href="?outcome=partial&amp;q=gone&amp;sort=tti"' in said  # the other way
    assert 'href="?q=gone&amp;sort=-tti"' in said  # the condition taken away
    assert 'aria-sort="descending"' in said


def test_pages_follow_one_another(operator: Client, make_run: MakeRun) -> None:
    make_run()
    assert 'rel="next" href="?after=100"' in body(operator, PAGE)
    said = body(operator, f"{PAGE}?outcome=success&after=100")
    assert 'rel="next" href="?outcome=success&amp;after=200"' in said
    assert "From the beginning" in said


def test_nothing_found_says_what_to_do(operator: Client, make_run: MakeRun) -> None:
    make_run()
    said = body(operator, f"{PAGE}?outcome=pending")
    assert "No sandbox of this Run is like that" in said


@pytest.mark.parametrize(
    "query", ["outcome=great", "sort=beauty", "after=x.y", "least_ms=5"]
)
def test_a_bad_address_says_what_is_wrong(
    operator: Client, make_run: MakeRun, query: str
) -> None:
    make_run()
    assert "asks for something that cannot be" in body(operator, f"{PAGE}?{query}", 400)


def test_the_same_address_is_a_file(operator: Client, make_run: MakeRun) -> None:
    make_run()
    for kind in ("csv", "parquet", "json"):
        answer = operator.get(f"{PAGE}.{kind}?outcome=partial")
        assert answer.streaming
        lines = b"".join(answer.streaming_content).decode().splitlines()
        assert lines[1:] == ["333,partial", "334,partial", "335,partial"]
    assert operator.get(f"{PAGE}.exe").status_code == 404
    assert operator.get(f"{PAGE}.csv?outcome=great").status_code == 400


def test_strangers_see_published_runs_only(make_run: MakeRun, client: Client) -> None:
    make_run()
    for part in ("", ".csv"):
        assert client.get(f"{PAGE}{part}").status_code == 404
    assert client.get("/runs/alpha-1/shards").status_code == 404


def test_clickhouse_away_is_said(
    operator: Client, make_run: MakeRun, record: ModuleType
) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise QueryError("gone", retryable=True)

    record.sandboxes = record.export = away  # type: ignore[attr-defined]
    record.shards = away  # type: ignore[attr-defined]
    make_run()
    assert "cannot be read now" in body(operator, PAGE)
    body(operator, f"{PAGE}.csv", 503)
    assert "cannot be read now" in body(operator, "/runs/alpha-1/shards", 503)


def test_shards_are_sorted_by_a_figure(operator: Client, make_run: MakeRun) -> None:
    make_run(level="SUSPECT")
    said = body(operator, "/runs/alpha-1/shards?sort=loop_lag_us")
    assert "highest loop lag first" in said
    first = said.index('href="/runs/alpha-1/shards/3"')
    assert all(
        first < said.index(f'href="/runs/alpha-1/shards/{n}"') for n in (0, 1, 2, 4)
    )
    assert "▲ 140 ms" in said
