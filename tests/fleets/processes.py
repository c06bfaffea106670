"""A stand-in's machines as agent processes of this one, started and killed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.embedded import ROOT, Site
from tests.fleets.bed import until
from tests.fleets.cloud import Cloud


@dataclass(slots=True)
class Agents:
    """Machines of one Run that were booted; by the name that EC2 gave each."""

    site: Site
    cloud: Cloud
    code: str
    token: str
    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def boot(self, row: Mapping[str, Any]) -> None:
        """What the user data does once the wheels are there."""
        name = str(row["InstanceId"])
        spool = self.folder / "spools" / name
        spool.mkdir(parents=True)
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG")}
        facts = {"ID": name, "TYPE": row["InstanceType"], "NODE": "this"}
        with (spool / "out").open("wb") as out:
            self.processes[name] = subprocess.Popen(
                [
                    *(sys.executable, "-m", "shardagent", "--site", self.site.url),
                    *("--run", self.code, "--spool", str(spool)),
                ],
                env={
                    **kept,
                    "PYTHONPATH": str(ROOT),
                    "HOLDFAST_AGENT_TOKEN": self.token,
                    **{f"HOLDFAST_MACHINE_{k}": v for k, v in facts.items()},
                },
                stdout=out,
                stderr=out,
            )

    def kill(self, name: str) -> None:
        """Power off; EC2 terminates a machine that is off."""
        self.processes[name].kill()
        self.processes[name].wait(10)
        self.cloud.ended({"InstanceId": name})

    def until_over(self, limit_s: float) -> None:
        """Each leaves by itself, and is terminated as a shutdown would have it."""
        for name, process in self.processes.items():
            until(lambda p=process: p.poll() is not None, f"{name} to leave", limit_s)
            self.cloud.ended({"InstanceId": name})


@contextmanager
def agents(site: Site, cloud: Cloud, code: str, folder: Path) -> Iterator[Agents]:
    """None is booted yet; all are gone in the end."""
    (token,) = re.findall(r"AGENT_TOKEN=(\w+)", cloud.script(code))
    made = Agents(site, cloud, code, token, folder)
    try:
        yield made
    finally:
        for process in made.processes.values():
            process.kill()
            process.wait(10)
