"""manage.py launch_run PLAN.json: launch a Run, beside a running site or without."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from runs import credentials
from runs.errors import PlanError, ServiceError
from runs.launch import checked_plan, create_run, launch, warnings_for
from runs.management.site import site_for_commands
from runs.management.watch import wait_until_sealed

PLAN_BYTES_MAX = 1024 * 1024
BAD_INPUT = 2  # exit status


class Command(BaseCommand):
    help = "Launch a Run from a Plan (a JSON file, or - for standard input)."
    requires_system_checks = []  # they load every page: a second

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("plan")
        parser.add_argument("--credential", default="", help="id of an account")
        parser.add_argument("--wait", action="store_true", help="until it is sealed")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, **options: Any) -> None:
        asked = _read(options["plan"])
        try:
            plan = checked_plan(asked)
            credential = credentials.choose(None, plan, options["credential"])
        except PlanError as error:
            if options["json"]:
                self.stdout.write(json.dumps({"errors": error.messages}))
            lines = [f"  {field}: {what}" for field, what in error.messages.items()]
            raise CommandError(
                "the Plan cannot be carried out:\n" + "\n".join(lines),
                returncode=BAD_INPUT,
            ) from None
        for warning in warnings_for(plan):
            self.stderr.write(f"warning: {warning}")
        try:
            with site_for_commands(may_start=options["wait"]) as mind:
                run = create_run(plan, None, credential)
                launch(run, "launch_run")
                if options["wait"]:
                    wait_until_sealed(run, mind, quiet=options["json"])
        except ServiceError as error:
            raise CommandError(str(error)) from None
        run.refresh_from_db()
        if options["json"]:
            from runs.api.shapes import run_json

            self.stdout.write(json.dumps(run_json(run)))
        else:
            self.stdout.write(f"{run.code} {run.state}")
        if options["wait"] and run.state != "sealed":
            sys.exit(1)


def _read(name: str) -> object:
    try:
        text = sys.stdin.read(PLAN_BYTES_MAX + 1) if name == "-" else _text(Path(name))
        if len(text) > PLAN_BYTES_MAX:
            raise CommandError(
                f"{name} is larger than {PLAN_BYTES_MAX} bytes", returncode=BAD_INPUT
            )
        return json.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(
            f"cannot read {name}: {error}", returncode=BAD_INPUT
        ) from None
    except json.JSONDecodeError as error:
        raise CommandError(
            f"{name} is not JSON: {error}", returncode=BAD_INPUT
        ) from None


def _text(path: Path) -> str:
    with path.open() as file:
        return file.read(PLAN_BYTES_MAX + 1)
