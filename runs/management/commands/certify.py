"""manage.py certify: simulated Runs against their known truth, one after another."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from runs.certify import certifying_plan
from runs.errors import ServiceError
from runs.launch import checked_plan, create_run, launch
from runs.management.site import site_for_commands
from runs.management.watch import wait_until_sealed

SEEDS_MAX = 1_000
_COLUMNS = (
    ("seed", "seed"),
    ("code", "code"),
    ("clean", "clean"),
    ("violations", "violations"),
    ("misclassified", "misclassified"),
    ("sleepers", "sleepers"),
    ("unobserved", "unobserved"),
    ("held", "held"),
    ("latency_error_p99_us", "error P99 µs"),
    ("verdict", "verdict"),
    ("seconds", "seconds"),
)


class Command(BaseCommand):
    help = "Check simulated Runs of varied worlds against the worlds' own truth."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--seeds", type=int, default=20, help="how many Runs")
        parser.add_argument("--first", type=int, default=0, help="the first seed")
        parser.add_argument("--sandboxes", type=int, default=1_000)
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, **options: Any) -> None:
        first, count = options["first"], options["seeds"]
        if not 1 <= count <= SEEDS_MAX:
            raise CommandError(f"--seeds must be 1 to {SEEDS_MAX:,}")
        rows = []
        try:
            with site_for_commands(may_start=True) as mind:
                for seed in range(first, first + count):
                    rows.append(_certify(seed, options["sandboxes"], mind))
                    if not options["json"]:
                        self._print(rows[-1], header=len(rows) == 1)
        except ServiceError as error:
            raise CommandError(str(error)) from None
        clean = sum(row["clean"] for row in rows)
        if options["json"]:
            self.stdout.write(json.dumps({"clean": clean, "runs": rows}))
        else:
            self.stdout.write(f"{clean} of {count} clean")
        if clean < count:
            sys.exit(1)

    def _print(self, row: dict[str, Any], *, header: bool) -> None:
        if header:
            self.stdout.write("  ".join(title for _, title in _COLUMNS))
        cells = [str(row[key]).rjust(len(title)) for key, title in _COLUMNS]
        self.stdout.write("  ".join(cells))
        self.stdout.flush()


def _certify(seed: int, sandboxes: int, mind: Any) -> dict[str, Any]:
    began = time.monotonic()
    plan = checked_plan(certifying_plan(seed, sandboxes))
    run = create_run(plan, None)
    launch(run, "certify")
    wait_until_sealed(run, mind, quiet=True)
    run.refresh_from_db()
    summary = run.summary or {}
    found = summary.get("certificate") or {"clean": False}
    held = summary.get("held")
    return {
        "seed": seed,
        "code": run.code,
        **found,
        "violations": found.get("violations"),
        "unobserved": summary["outcomes"]["unobserved"]
        + summary["outcomes"]["not_attempted"],
        "outcomes": summary["outcomes"],
        "held": held["proven"] if held else None,
        "verdict": summary["verdict"]["level"],
        "reasons": {x["check"]: x["value"] for x in summary["verdict"]["reasons"]},
        "seconds": round(time.monotonic() - began, 1),
    }
