"""manage.py reap CODE | --all: destroy sandboxes that no Run holds any more."""

from __future__ import annotations

import json
import sys
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from runs.errors import RunsError
from runs.management.site import operate
from runs.models import Run, State

RUNS_MAX = 10_000


class Command(BaseCommand):
    help = "List a Run's sandboxes at its Provider by label and destroy them."
    requires_system_checks = []  # they load every page: a second

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("code", nargs="?")
        parser.add_argument("--all", action="store_true", help="every Run that is over")
        parser.add_argument("--dry-run", action="store_true", help="only list")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, **options: Any) -> None:
        if bool(options["code"]) == options["all"]:
            raise CommandError("give a Run's code, or --all", returncode=2)
        call_command("migrate", verbosity=0, interactive=False)
        name = "list_leaks" if options["dry_run"] else "reap"
        try:
            codes = _over() if options["all"] else [options["code"]]
            rows = [operate(name, code) for code in codes]
        except RunsError as error:
            raise CommandError(str(error)) from None
        if options["json"]:
            self.stdout.write(json.dumps(rows if options["all"] else rows[0]))
        else:
            for row in rows:
                self._say(row, dry=options["dry_run"])
        clean = all(not row["left"] and not row["error"] for row in rows)
        if not clean and not options["dry_run"]:
            sys.exit(1)

    def _say(self, row: dict[str, Any], *, dry: bool) -> None:
        cost = "" if row["cost_usd"] is None else f", about ${row['cost_usd']:.2f}"
        done = "" if dry else f", {row['destroyed']:,} destroyed, {row['left']} left"
        fault = f" ({row['error']})" if row["error"] else ""
        self.stdout.write(f"{row['code']}: {row['listed']:,} leaked{done}{cost}{fault}")


def _over() -> list[str]:
    over = Run.objects.filter(state=State.SEALED).order_by("id")
    return list(over.values_list("code", flat=True)[:RUNS_MAX])
