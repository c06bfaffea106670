"""manage.py up: the embedded site, until Ctrl-C."""

from __future__ import annotations

import signal
import threading
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from benchsite.embedded import Installation
from runs.errors import ServiceError

MIND_INTERVAL_S = 0.5


class Command(BaseCommand):
    help = "Serve the site, work the queues and look after the embedded services."
    requires_system_checks = []

    def handle(self, **options: Any) -> None:
        asked = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: asked.set())
        installation = Installation(settings.PORT)
        try:
            installation.start()
            self.stdout.write(f"Holdfast is at {installation.url} (Ctrl-C stops it)")
            self.stdout.write("an operator signs in with: manage.py sign_in_link NAME")
            self.stdout.flush()
            while not asked.wait(MIND_INTERVAL_S):
                installation.mind()
        except ServiceError as error:
            raise CommandError(str(error)) from None
        finally:
            installation.stop()
