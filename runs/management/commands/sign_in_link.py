"""manage.py sign_in_link NAME: prints a one-time sign-in link."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandParser

from runs.operators import operator, sign_in_path


class Command(BaseCommand):
    help = "Print a one-time sign-in link for the operator NAME, made if missing."
    requires_system_checks = []  # they load every page: a second

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", nargs="?", default="operator")

    def handle(self, **options: Any) -> None:
        call_command("migrate", verbosity=0, interactive=False)
        path = sign_in_path(operator(options["name"]))
        self.stdout.write(f"{settings.SITE_URL}{path}")
