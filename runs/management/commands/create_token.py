"""manage.py create_token NAME: prints an operator's API token, nothing else."""

from __future__ import annotations

from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandParser

from runs.operators import create_token, operator


class Command(BaseCommand):
    help = "Print a new API token for the operator NAME, who is made if missing."
    requires_system_checks = []  # they load every page: a second

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name")

    def handle(self, **options: Any) -> None:
        call_command("migrate", verbosity=0, interactive=False)
        self.stdout.write(create_token(operator(options["name"]), "create_token"))
