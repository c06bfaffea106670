"""A Run at a vendor's stand-in with no account; and one through a credential, at a
vendor that repeats the key in its refusals: nothing that it wrote holds the key."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener

import aiohttp
import pytest
from aiohttp import web

from shardagent import zstd
from tests.embedded import Site, quick_plan, running
from tests.vendors.standin import SECRET, standin

pytestmark = pytest.mark.e2e

ECHOED = "bad key"  # what is left of a refusal says at least this
REFUSED = 3
# Every row of every table, as text; what matches is counted.
COUNT = """
from runs.clickhouse.client import query_rows
tables = [row["name"] for row in query_rows(
    "SELECT name FROM system.tables WHERE database = currentDatabase()", name="test")]
found = {}
for word in (%r, %r):
    found[word] = sum(
        row["n"]
        for table in tables
        for row in query_rows(
            f"SELECT count() AS n FROM {table} "
            "WHERE position(formatRow('JSONEachRow', *), {word:String}) > 0",
            {"word": word}, name="test"))
print("COUNTED", len(tables), *found.values())
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("site")) as site:
        yield site


def test_a_run_at_the_stand_in_is_simulated_and_certified(site: Site) -> None:
    plan = quick_plan(
        provider="e2b",
        endpoint="simcloud",
        sandbox_count=30,
        sandboxes_per_shard=10,
        witness=True,
        world={"deaths": 2, "death_window_s": [2, 4], "create_errors": 1},
        seed=5,
    )
    found = site.post("/preflight", plan)
    assert [step["name"] for step in found["steps"] if not step["ok"]] == []
    run = site.until_state(site.launch(plan), "sealed")
    assert run["outcomes"]["success"] == 27
    assert {"simulated", "stand-in"} <= set(run["labels"])
    assert run["certificate"]["clean"]
    assert run["certificate"]["compared"] == 30


@contextmanager
def telltale(endpoint: str) -> Iterator[str]:
    """Before a stand-in: the first creates fail, in words that hold the key."""
    address: list[str] = []
    up, over = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()
    told = 0

    async def serve() -> None:
        async with aiohttp.ClientSession(auto_decompress=False) as session:

            async def handler(request: web.BaseRequest) -> web.Response:
                nonlocal told
                key = request.headers.get("X-API-KEY", "")
                if request.path == "/v2/sandboxes" and request.method == "POST":
                    told += 1
                    if told <= REFUSED:
                        said = {"message": f"{ECHOED} {key} in X-API-KEY: {key}"}
                        return web.json_response(said, status=500)
                async with session.request(
                    request.method,
                    endpoint + request.path_qs,
                    headers={k: v for k, v in request.headers.items() if k != "Host"},
                    data=await request.read(),
                ) as answer:
                    return web.Response(
                        status=answer.status,
                        body=await answer.read(),
                        content_type=answer.content_type,
                    )

            runner = web.ServerRunner(web.Server(handler))
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0][:2]
            address.append(f"http://{host}:{port}")
            up.set()
            await over.wait()
            await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert up.wait(20)
    try:
        yield address[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(20)
        loop.close()


def test_nothing_a_run_wrote_holds_the_secret_it_used(
    site: Site, tmp_path: Path
) -> None:
    with standin("e2b", tmp_path, 20) as config, telltale(config["endpoint"]) as where:
        code = _through_a_credential(site, where)
        run = site.until_state(code, "sealed")
        assert run["outcomes"]["failed"] == REFUSED
        assert run["outcomes"]["success"] == 20 - REFUSED
        assert "simulated" in run["labels"]
        said = _everything_shown(site, code)
    # The vendor's words are there, without the key.
    assert ECHOED in said
    assert "[removed]" in said
    assert SECRET not in said
    site.stop()  # so that its ClickHouse can be asked
    _search_files(site.data)
    done = site.manage("shell", "-c", COUNT % (SECRET, "[removed]"))
    counted = next(x for x in done.stdout.splitlines() if x.startswith("COUNTED"))
    _, tables, secret, removed = counted.split()
    assert int(tables) > 10
    assert int(secret) == 0
    assert int(removed) >= REFUSED  # the same search finds what is there
    # It was kept, but sealed.
    with sqlite3.connect(site.data / "site.sqlite3") as database:
        (sealed,) = database.execute("SELECT sealed FROM runs_credential").fetchone()
        dump = "\n".join(database.iterdump())
    assert sealed.startswith("gAAAA")
    assert SECRET not in dump


def _everything_shown(site: Site, code: str) -> str:
    """The API's answers, and the pages that an operator sees."""
    api = f"/runs/{code}"
    asked = [api, f"{api}/causes", f"{api}/sandboxes", f"{api}/defects", "/credentials"]
    asked += [f"{api}/shards", f"{api}/shards/0/log", f"{api}/shards/1/log"]
    answers = [json.dumps(site.get(path)) for path in asked]
    browser = build_opener(HTTPCookieProcessor(CookieJar()))
    link = site.manage("sign_in_link", "tester").stdout.strip()
    page = browser.open(link, timeout=20).read().decode()
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    assert found is not None
    form = urlencode({"csrfmiddlewaretoken": found[1]}).encode()
    assert "tester" in browser.open(link, form, timeout=20).read().decode()
    for path in (
        f"/runs/{code}",
        f"/runs/{code}/sandboxes?outcome=failed",
        f"/runs/{code}/shards/0",
        f"/runs/{code}/log?q=key",
        f"/runs/{code}/summary.md",
        f"/runs/{code}/sandboxes.csv",
        f"/runs/{code}/shards/0/log.txt",
        "/credentials/",
    ):
        with browser.open(site.url + path, timeout=20) as answer:
            answers.append(answer.read().decode())
    return "\n".join(answers)


def _search_files(data: Path) -> None:
    """Bucket, databases, logs, spools, what the processes printed."""
    searched = 0
    for path in data.rglob("*"):
        if path.is_file() and not path.is_symlink():
            raw = path.read_bytes()
            if path.suffix == ".zst":
                raw = zstd.decompress(raw)
            assert SECRET.encode() not in raw, path
            searched += 1
    assert searched > 20


def _through_a_credential(site: Site, endpoint: str) -> str:
    site.token()
    script = (
        "from django.contrib.auth.models import User; from runs import credentials; "
        "credentials.add(User.objects.get(username='tester'), 'e2b', 'test', "
        f"{{'api_key': '{SECRET}'}}, '{endpoint}')"
    )
    site.manage("shell", "-c", script)
    plan = quick_plan(
        provider="e2b", sandbox_count=20, sandboxes_per_shard=10, hold_s=2
    )
    return site.launch(plan)
