"""manage.py web: the pages and the API, beside databases and workers elsewhere."""

from __future__ import annotations

import signal
import threading
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from benchsite import web
from runs.errors import ServiceError


class Command(BaseCommand):
    help = "Serve pages and API only; for installations on services of their own."
    requires_system_checks = []

    def handle(self, **options: Any) -> None:
        asked = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: asked.set())
        try:
            server = web.serve(web.listen(settings.PORT))
        except ServiceError as error:
            raise CommandError(str(error)) from None
        self.stdout.write(f"Holdfast listens on {settings.LISTEN}:{settings.PORT}")
        self.stdout.flush()
        asked.wait()
        server.close()
