"""manage.py simcloud VENDOR: that vendor's API before a simulated world, to try."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from pydantic import ValidationError

from runs.clock import RunClock
from runs.simcloud.web import VENDORS
from runs.simworld.config import WorldConfig

SANDBOXES_MAX = 1_000_000
LIFETIME_S = 7 * 24 * 3_600


class Command(BaseCommand):
    help = "Stand in for a vendor until Ctrl-C; its truth is written to a folder."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("vendor", choices=sorted(VENDORS))
        parser.add_argument("--port", type=int, default=0, help="default: any")
        parser.add_argument("--world", default="{}", help="as in a Plan, JSON")
        parser.add_argument("--seed", type=int, default=1)
        parser.add_argument("--truth", default="", help="folder; default: a new one")

    def handle(self, **options: Any) -> None:
        vendor = options["vendor"]
        folder = Path(options["truth"] or tempfile.mkdtemp(prefix="simcloud-"))
        key = secrets.token_urlsafe(24)
        path = folder / "world.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            config = self._config(options, folder, key)
        except (OSError, ValueError, ValidationError) as error:
            raise CommandError(f"cannot begin: {error}", returncode=2) from None
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(config.model_dump_json())
        command = [sys.executable, "-m", "runs.simworld", "--config", str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            words = process.stdout.readline().split()
            if words[:1] != ["ready"]:
                raise CommandError("the stand-in did not start")
            self._tell(vendor, words[1], key, folder)
            try:
                process.wait()
            except KeyboardInterrupt:
                process.terminate()
                process.wait()
        if process.returncode:
            raise CommandError(f"the stand-in ended with {process.returncode}")

    def _config(self, options: dict[str, Any], folder: Path, key: str) -> WorldConfig:
        clock = RunClock.start()
        return WorldConfig.model_validate(
            {
                "run": "simcloud",
                "seed": options["seed"],
                "sandbox_count": SANDBOXES_MAX,
                "lifetime_s": LIFETIME_S,
                "world": json.loads(options["world"]),
                "vendor": options["vendor"],
                "listen": f"127.0.0.1:{options['port']}",
                "secret": key,
                "clock": {
                    "base_wall_us": clock.base_wall_us,
                    "base_mono_raw_ns": clock.base_mono_ns,
                },
                "truth_dir": str(folder),
            }
        )

    def _tell(self, vendor: str, address: str, key: str, folder: Path) -> None:
        lines = [
            f"{vendor} (simulated) listens at http://{address}",
            f"key: {key}",
            f"truth: {folder}",
            "Add both on the page Credentials, or give them to the vendor's SDK.",
        ]
        for line in lines:
            self.stdout.write(line)
        self.stdout.flush()
