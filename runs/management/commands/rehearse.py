"""manage.py rehearse PLAN.json: all of a Run but its sandboxes.

Machines are started, armed, released at one T0 and ended; how far apart they would have
fired, how well their clocks are known and how long it took is printed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from runs.errors import PlanError, ServiceError
from runs.launch import launch, parse_and_create
from runs.management.site import site_for_commands
from runs.management.watch import wait_until_sealed

CHANGES = {"rehearsal": True, "ranked": False, "hold_s": 0, "final_spread_s": 0}


class Command(BaseCommand):
    help = "Rehearse a Plan's fleet: provision, arm, fire at nothing, tear down."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("plan", type=Path)
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, **options: Any) -> None:
        try:
            asked = json.loads(options["plan"].read_text())
        except (OSError, ValueError) as error:
            raise CommandError(f"cannot read the Plan: {error}") from None
        if not isinstance(asked, dict):
            raise CommandError("a Plan is a JSON object")
        try:
            with site_for_commands(may_start=True) as mind:
                run = parse_and_create({**asked, **CHANGES}, None)
                launch(run, "rehearse")
                wait_until_sealed(run, mind, quiet=True)
                run.refresh_from_db()
        except PlanError as error:
            lines = [f"  {field}: {text}" for field, text in error.messages.items()]
            raise CommandError(
                "\n".join(["this Plan:", *lines]), returncode=2
            ) from None
        except ServiceError as error:
            raise CommandError(str(error)) from None
        found = (run.summary or {}).get("fleet") or {}
        found |= {"code": run.code, "end_reason": run.end_reason}
        found |= {"end_detail": run.end_detail or None, "shard_count": _shards(run)}
        if options["json"]:
            self.stdout.write(json.dumps(found))
        else:
            self._say(found)
        if run.end_reason != "completed":
            sys.exit(1)

    def _say(self, found: dict[str, Any]) -> None:
        fired = found.get("rehearsed") or {}
        rows = (
            ("machines", f"{found.get('provisioned')}"),
            ("hosts", f"{found.get('hosts')} on {found.get('machines')} machines"),
            ("egress addresses", found.get("egress_addresses")),
            ("kinds", found.get("types")),
            ("launch to armed", f"{found.get('launch_to_armed_s')} s"),
            ("Shards fired", f"{fired.get('shards', 0)} of {found['shard_count']}"),
            ("start skew P99", f"{fired.get('skew_p99_ms')} ms"),
            ("start skew max", f"{fired.get('skew_max_ms')} ms"),
            ("clock bound", f"{fired.get('clock_bound_ms')} ms"),
        )
        for name, value in rows:
            self.stdout.write(f"{name:<18}{value}")
        if found["end_detail"]:
            self.stdout.write(f"{found['end_reason']}: {found['end_detail']}")


def _shards(run: Any) -> int:
    return int(run.plan["shard_count"])
