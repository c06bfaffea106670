"""manage.py prepare: database, static files, bucket and ClickHouse's tables."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from benchsite.embedded import prepare
from runs.errors import RunsError


class Command(BaseCommand):
    help = "Bring the services that the environment names up to this version."

    def handle(self, **options: Any) -> None:
        try:
            prepare()
        except RunsError as error:
            raise CommandError(str(error)) from None
        self.stdout.write("database, bucket and ClickHouse are ready")
