"""A real embedded site for tests: `manage.py up` as a process, and its API."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import boto3

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = "HOLDFAST_TEST_TEMPLATE"  # a folder for all workers (tests/isolation.py)
OPERATOR = "tester"
STATE_POLL_S = 0.4  # each look at a Run costs its site 25 ms of CPU
START_S = 40
STOP_S = 12
COMMAND_S = 120


# Of DATA, what is alike in all: not its keys, nor its bucket.
PREPARED = ("static", "clickhouse", "site.sqlite3")

# A world of quick_plan's 80 Sandboxes, and what becomes of them in it.
WORLD = {
    "profile": "blaxel",
    "create_errors": 2,
    "create_hangs": 1,
    "never_ready": 3,
    "deaths": 4,
    "death_window_s": [4, 6],
}
EXPECTED = {
    "success": 70,
    "partial": 4,
    "readiness_failed": 3,
    "failed": 3,
    "unobserved": 0,
    "not_attempted": 0,
    "total": 80,
}


class Site:
    """One DATA folder and its `up` process; can be killed and started again."""

    def __init__(self, data: Path, **environment: str) -> None:
        self.data = data
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._token = ""

    def environment_add(self, **more: str) -> None:
        """Settings that depend on the port; before the start."""
        self._environment |= more

    def start(self, *, bare: bool = False) -> None:
        """Begin with tables, static files and a token that one site has made for all;
        `bare`: make them here, as the first start on a machine does."""
        kept = os.environ.get(TEMPLATE)
        if kept and not bare and not (self.data.exists() and os.listdir(self.data)):
            self._token = _begin_with(Path(kept), self.data)
        self.data.mkdir(parents=True, exist_ok=True)
        with (self.data / "up.out").open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "manage.py", "up"],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        self.until(self._answers, START_S, "the site to answer")

    def stop(self) -> float:
        """SIGINT, as Ctrl-C; returns the seconds it took."""
        return self._end(signal.SIGINT)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
        own = {"DATA": str(self.data), "PORT": str(self.port)}
        return {**kept, **own, **self._environment}

    def manage(
        self, *words: str, check: bool = True, limit_s: float = COMMAND_S
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "manage.py", *words],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def token(self) -> str:
        if not self._token:
            self._token = self.manage("create_token", OPERATOR).stdout.strip()
        return self._token

    def get(self, path: str, *, anonymous: bool = False) -> Any:
        return self._ask("GET", path, None, anonymous=anonymous)

    def post(self, path: str, body: object = None, *, anonymous: bool = False) -> Any:
        return self._ask("POST", path, body, anonymous=anonymous)

    def status(self, method: str, path: str, body: object = None) -> int:
        try:
            self._ask(method, path, body, anonymous=False)
        except HTTPError as error:
            return error.code
        return 200

    def bucket(self) -> Any:
        """The site's bucket, by the S3 protocol (a boto3 Bucket)."""
        kept = json.loads((self.data / "secrets.json").read_text())
        store = boto3.resource(
            "s3",
            endpoint_url=f"http://127.0.0.1:{kept['s3_port']}",
            region_name="us-east-1",
            aws_access_key_id=kept["s3_access_key_id"],
            aws_secret_access_key=kept["s3_secret_access_key"],
        )
        return store.Bucket("raw")

    def launch(self, plan: dict[str, Any]) -> str:
        run = self.post("/runs?launch=true", plan)
        return str(run["code"])

    def run(self, code: str) -> Any:
        return self.get(f"/runs/{code}")

    def until_state(self, code: str, *states: str, timeout_s: float = 90) -> Any:
        def there() -> Any:
            run = self.run(code)
            return run if run["state"] in states else None

        what = f"{code} to be {' or '.join(states)}"
        return self.until(there, timeout_s, what, every_s=STATE_POLL_S)

    def until(
        self,
        found: Callable[[], Any],
        timeout_s: float,
        what: str,
        *,
        every_s: float = 0.1,
    ) -> Any:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            value = found()
            if value:
                return value
            time.sleep(every_s)
        tail = (self.data / "up.out").read_text()[-2_000:]
        raise AssertionError(f"waited {timeout_s} s for {what}\n{tail}")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.data / "up.out").read_text()[-2_000:]
        try:
            with urlopen(f"{self.url}/api/v1/runs", timeout=2):
                return True
        except OSError:
            return False

    def _ask(self, method: str, path: str, body: object, *, anonymous: bool) -> Any:
        headers = {"Content-Type": "application/json"}
        if not anonymous:
            headers["Authorization"] = f"Bearer {self.token()}"
        data = None if body is None else json.dumps(body).encode()
        request = Request(
            f"{self.url}/api/v1{path}", data=data, headers=headers, method=method
        )
        with urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text[:1] in (b"{", b"[") else text

    def _end(self, number: int) -> float:
        if self._process is None:
            return 0.0
        began = time.monotonic()
        self._process.send_signal(number)
        self._process.wait(STOP_S)
        self._process = None
        return time.monotonic() - began


@contextmanager
def running(data: Path | Site, **environment: str) -> Iterator[Site]:
    site = data if isinstance(data, Site) else Site(data, **environment)
    try:
        site.start()
        yield site
    finally:
        site.stop()


def _begin_with(template: Path, data: Path) -> str:
    """Copy what a first start makes; its API token."""
    with (template / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        token = template / "token"
        if not token.exists():
            first = Site(template / "first")
            first.start(bare=True)
            made = first.token()
            first.stop()
            token.write_text(made)
    for name in PREPARED:
        there = template / "first" / name
        if there.is_dir():
            shutil.copytree(there, data / name, symlinks=True)
        else:
            shutil.copy(there, data / name)
    return token.read_text()


def quick_plan(**changes: Any) -> dict[str, Any]:
    """A simulated Run that is sealed some 20 s after launch."""
    return {
        "provider": "sim",
        "sandbox_count": 80,
        "sandboxes_per_shard": 20,
        "hold_s": 4,
        "probe_interval_s": 1,
        "probe_timeout_s": 1,
        "probe_failures_max": 2,
        "create_timeout_s": 3,
        "ready_timeout_s": 2,
        "final_spread_s": 1,
        "heartbeat_interval_s": 0.5,
        "flush_interval_s": 1,
        "fleet": {"driver": "local", "shards_per_host": 2},
        **changes,
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
