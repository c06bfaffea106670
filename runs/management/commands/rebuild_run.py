"""manage.py rebuild_run CODE | --all: bring Runs back from the bucket alone."""

from __future__ import annotations

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from runs.errors import RunsError
from runs.management.site import operate, site_for_commands


class Command(BaseCommand):
    help = "Rebuild Runs (rows, ClickHouse, summaries) from the bucket alone."
    requires_system_checks = []  # they load every page: a second

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("code", nargs="?")
        parser.add_argument(
            "--all", action="store_true", help="every Run in the bucket"
        )
        parser.add_argument("--wait", action="store_true", help="the default; kept")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, **options: Any) -> None:
        if bool(options["code"]) == options["all"]:
            raise CommandError("give a Run's code, or --all", returncode=2)
        try:
            with site_for_commands(may_start=True):
                codes = operate("codes", "all") if options["all"] else [options["code"]]
                rows = [self._one(code, options["json"]) for code in codes]
        except RunsError as error:
            raise CommandError(str(error)) from None
        if options["json"]:
            self.stdout.write(json.dumps(rows if options["all"] else rows[0]))
        if not all(row["rebuilt"] for row in rows):
            sys.exit(1)

    def _one(self, code: str, quiet: bool) -> dict[str, Any]:  # noqa: FBT001
        row: dict[str, Any] = operate("rebuild", code)
        if not quiet and row["rebuilt"]:
            self.stdout.write(f"{code} rebuilt, {row['verdict']}")
        elif not quiet:
            self.stderr.write(f"{code} not rebuilt: {row['error']}")
        return row
