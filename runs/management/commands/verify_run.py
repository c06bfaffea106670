"""manage.py verify_run CODE: recompute a Run from its segments and compare."""

from __future__ import annotations

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from runs.errors import RunsError
from runs.management.site import operate, site_for_commands


class Command(BaseCommand):
    help = "Compare a sealed Run's manifest with its segments; exit 1 on a difference."
    requires_system_checks = []  # they load every page: a second

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("code")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, **options: Any) -> None:
        try:
            with site_for_commands(may_start=True):
                found = operate("verify", options["code"])
        except RunsError as error:
            raise CommandError(str(error)) from None
        if options["json"]:
            self.stdout.write(json.dumps(found))
        else:
            for line in found["differences"]:
                self.stdout.write(line)
            if not found["differences"]:
                self.stdout.write(f"{found['code']}: every byte and number agrees")
        if found["differences"]:
            sys.exit(1)
