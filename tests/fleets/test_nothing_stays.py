"""Whatever happens while machines are started, none is left when the Run is over."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.embedded import Site, running
from tests.fleets.bed import until
from tests.fleets.cloud import Cloud, cloud
from tests.fleets.processes import agents
from tests.fleets.test_ec2_machines import make_plan, make_site

pytestmark = [pytest.mark.fleets, pytest.mark.e2e, pytest.mark.timeout(900)]
MACHINES = 300  # two batches


@pytest.fixture(scope="module")
def there() -> Iterator[Cloud]:
    with cloud() as made:
        yield made


def launch(site: Site, machines: int, **fleet: Any) -> str:
    """As many machines as Shards; none of them is ever booted."""
    return site.launch(
        make_plan(sandbox_count=machines, sandboxes_per_shard=1, fleet=fleet)
    )


def ended(site: Site, there: Cloud, code: str) -> None:
    run = site.until_state(code, "sealed", timeout_s=90)
    assert run["outcomes"]["not_attempted"] == run["outcomes"]["total"]
    assert there.machines(code) == []
    assert there.templates() == []


def environment(wheels: Path) -> dict[str, str]:
    return {"AGENT_WHEELHOUSE": str(wheels)}


def test_an_abort_ends_every_machine(
    tmp_path: Path, there: Cloud, wheels: Path
) -> None:
    with running(make_site(tmp_path, there, **environment(wheels))) as site:
        code = launch(site, 20, over_provision_pct=10)
        site.until_state(code, "arming", timeout_s=60)
        assert len(there.machines(code)) == 22
        shown = site.run(code)["fleet"]
        assert (shown["asked"], shown["granted"], shown["booted"]) == (22, 22, 0)
        assert shown["usd_per_h"] == pytest.approx(0.44)
        site.post(f"/runs/{code}/abort")
        ended(site, there, code)
        _machine_that_came_to_light_late(site, there, code)


def _machine_that_came_to_light_late(site: Site, there: Cloud, code: str) -> None:
    tags = [{"Key": "holdfast-run", "Value": code}]
    there.client.run_instances(
        ImageId="ami-12c6146b",
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
    )
    assert len(there.machines(code)) == 1
    until(lambda: there.machines(code) == [], "the sweep", 150)


def test_a_site_that_is_killed_while_it_starts_machines_finds_them_again(
    tmp_path: Path, there: Cloud, wheels: Path
) -> None:
    with running(make_site(tmp_path, there, **environment(wheels))) as site:
        code = launch(site, MACHINES)
        until(lambda: there.machines(code), "the first batch", 60)
        site.kill()
        before = len(there.machines(code))
        assert before
        site.start()
        site.until_state(code, "arming", timeout_s=90)
        assert MACHINES <= len(there.machines(code)) <= MACHINES + before
        site.post(f"/runs/{code}/abort")
        ended(site, there, code)


def test_machines_that_nobody_was_told_of_are_found_by_their_tag(
    tmp_path: Path, there: Cloud, wheels: Path
) -> None:
    with deaf(there.endpoint) as proxy:
        behind = Cloud(proxy.endpoint, there.client)
        with running(make_site(tmp_path, behind, **environment(wheels))) as site:
            code = launch(site, MACHINES)
            site.until_state(code, "arming", timeout_s=120)
            assert proxy.swallowed == 1
            assert len(there.machines(code)) >= MACHINES
            site.post(f"/runs/{code}/abort")
            ended(site, there, code)


def test_sandboxes_whose_machines_all_died_are_found_by_their_label(
    tmp_path: Path, there: Cloud, wheels: Path
) -> None:
    plan = make_plan(sandbox_count=60, hold_s=60, sandboxes_per_shard=20)
    with running(make_site(tmp_path, there, **environment(wheels))) as site:
        code = site.launch(plan)
        site.until_state(code, "arming", timeout_s=60)
        with agents(site, there, code, tmp_path) as machines:
            for row in there.machines(code):
                machines.boot(row)
            site.until_state(code, "holding", timeout_s=120)
            for name in machines.processes:
                machines.processes[name].kill()  # as EC2 sees it they still run
            run = site.until_state(code, "sealed", timeout_s=120)
        assert run["outcomes"]["unobserved"] == 60
        assert run["end_detail"] == "no agent is left"
        found = run["reaped"]
        assert (found["listed"], found["destroyed"], found["left"]) == (60, 60, 0)
        assert there.machines(code) == []
        assert there.templates() == []


class Deaf:
    """Passes requests on; the answer to the second CreateFleet is lost on the way."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.endpoint = ""
        self.created = self.swallowed = 0
        self.lock = threading.Lock()

    def loses(self, body: bytes) -> bool:
        if b"Action=CreateFleet" not in body:
            return False
        with self.lock:
            self.created += 1
            if self.created == 2:
                self.swallowed += 1
            return self.created == 2


@contextmanager
def deaf(target: str) -> Iterator[Deaf]:
    proxy = Deaf(target)

    class Passes(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kept = ("Authorization", "Content-Type", "X-Amz-Date")
            headers = {k: v for k, v in self.headers.items() if k in kept}
            request = Request(proxy.target + self.path, body, headers)
            with urlopen(request, timeout=60) as answer:
                text = answer.read()
            if proxy.loses(body):
                self.close_connection = True
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Passes)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    proxy.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
