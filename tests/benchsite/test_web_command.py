"""`manage.py web`: a process that serves, beside whatever else there is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from bench.site_process import free_port

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.e2e


def test_it_serves_until_it_is_told_to_end(tmp_path: Path) -> None:
    own = {"DATA": str(tmp_path), "PORT": str(free_port())}
    environment = {**os.environ, **own}
    manage = [sys.executable, "manage.py"]
    subprocess.run(
        [*manage, "migrate", "-v0"], cwd=ROOT, env=environment, check=True, timeout=60
    )
    web = subprocess.Popen(
        [*manage, "web"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert web.stdout is not None
        assert own["PORT"] in web.stdout.readline()
        url = f"http://127.0.0.1:{own['PORT']}/api/v1/runs"
        with urllib.request.urlopen(url, timeout=20) as answer:
            assert answer.status == 200
        taken = subprocess.run(
            [*manage, "web"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert taken.returncode == 1
        assert f"port {own['PORT']} cannot be used" in taken.stderr
        web.send_signal(signal.SIGTERM)
        assert web.wait(20) == 0
    finally:
        web.kill()
        web.wait(10)
        web.stdout.close()
