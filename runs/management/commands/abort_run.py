"""manage.py abort_run CODE: tear a Run down, collect and seal what there is."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from runs.errors import StateError
from runs.launch import abort
from runs.models import Run


class Command(BaseCommand):
    help = "Abort a Run; it is torn down, collected and sealed."
    requires_system_checks = []  # they load every page: a second

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("code")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, **options: Any) -> None:
        run = Run.objects.filter(code=options["code"]).first()
        if run is None:
            raise CommandError(f"no Run has the code {options['code']}")
        try:
            abort(run, "abort_run")
        except StateError as error:
            raise CommandError(str(error)) from None
        run.refresh_from_db()
        said = {"code": run.code, "state": run.state, "end_reason": run.end_reason}
        self.stdout.write(
            json.dumps(said) if options["json"] else f"{run.code} {run.state}"
        )
