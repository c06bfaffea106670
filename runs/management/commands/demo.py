"""manage.py demo: the embedded site and a small Run, shown live in the terminal."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
import time
from logging.handlers import RotatingFileHandler
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from benchsite.embedded import Installation
from runs import publication
from runs.demo import demo_plan
from runs.errors import RunsError, ServiceError
from runs.launch import checked_plan, create_run, launch
from runs.management.watch import wait_until_sealed
from runs.models import Run
from runs.operators import operator, sign_in_path

MIND_INTERVAL_S = 0.5
LOG_BYTES_MAX = 10 * 1024 * 1024


class Interrupted(Exception):
    """Ctrl-C or SIGTERM."""


class Command(BaseCommand):
    help = "Start the embedded site, launch a small Run and show it."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--exit", action="store_true", help="leave when the Run is sealed"
        )

    def handle(self, **options: Any) -> None:
        _log_to_file()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _interrupt)
        installation = Installation(settings.PORT)
        run = None
        try:
            self._say("starting the site, its object store, broker and ClickHouse …")
            installation.start()
            run = self._demo_run(installation)
            if not options["exit"]:
                self._serve(installation, run)
        except ServiceError as error:
            raise CommandError(str(error)) from None
        except Interrupted:
            self._say("stopping …")
        finally:
            installation.stop()
        if options["exit"]:
            self._leave(run)

    def _demo_run(self, installation: Installation) -> Run:
        user = operator("operator")
        self._say(f"the site is at   {installation.url}")
        run = create_run(checked_plan(demo_plan()), user)
        page = f"/runs/{run.code}"
        link = f"{installation.url}{sign_in_path(user)}?next={page}"
        self._say(f"watch it live at {link}")
        self._say("                 (this link signs you in as operator, once)")
        launch(run, "make demo")
        began = time.monotonic()
        wait_until_sealed(run, installation.mind, quiet=False)
        took_s = time.monotonic() - began
        self._say(f"sealed {took_s:.0f} s after launch; {_headline(run)}")
        shown = self._published(run)
        self._say(f"the Run's page   {installation.url}{page}{shown}")
        return run

    def _published(self, run: Run) -> str:
        """Publish the demo Run, so that its page needs no sign-in."""
        try:
            publication.publish(run, "make demo")
        except RunsError:  # INVALID: shown to operators only
            return " (sign in to see it: it cannot be published)"
        return " (published: anybody may open it)"

    def _serve(self, installation: Installation, run: Run) -> None:
        self._say("serving until Ctrl-C")
        while True:
            installation.mind()
            threading.Event().wait(MIND_INTERVAL_S)

    def _leave(self, run: Run | None) -> None:
        """The summary on the last line of stdout; status 0 only if the Run sealed."""
        if run is None or run.state != "sealed":
            sys.exit(1)
        from runs.api.shapes import run_json

        self.stdout.write(json.dumps(run_json(run)))

    def _say(self, line: str) -> None:
        self.stderr.write(line)
        self.stderr.flush()


def _headline(run: Run) -> str:
    summary = run.summary or {}
    held, verdict = summary.get("held"), summary.get("verdict", {}).get("level")
    if not held:
        return f"no hold was measured; the rig is {verdict}"
    return (
        f"{held['proven']:,} of {run.plan['target']:,} were alive together for the "
        f"whole {run.plan['hold_s']:g} s hold; the rig is {verdict}"
    )


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough; stopping is bounded
    raise Interrupted


def _log_to_file() -> None:
    """The terminal belongs to the Run; the site's log goes to $DATA/log/site.log."""
    folder = settings.DATA / "log"
    folder.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(
        folder / "site.log", maxBytes=LOG_BYTES_MAX, backupCount=2
    )
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    )
    logging.getLogger().handlers = [handler]
