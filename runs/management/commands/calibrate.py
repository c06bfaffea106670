"""manage.py calibrate: how large a Shard this machine carries without being felt."""

from __future__ import annotations

import json
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from runs import calibration
from runs.errors import ServiceError
from runs.launch import checked_plan, create_run, launch, software
from runs.management.site import Mind, site_for_commands
from runs.management.watch import wait_until_sealed


class Command(BaseCommand):
    help = "Drive a world without latency with growing Shards; see /calibration."

    def add_arguments(self, parser: CommandParser) -> None:
        sizes = ",".join(str(size) for size in calibration.SIZES)
        parser.add_argument("--sizes", default=sizes, help=f"default {sizes}")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, **options: Any) -> None:
        sizes = _sizes(options["sizes"])
        rows = []
        try:
            with site_for_commands(may_start=True) as mind:
                for size in sizes:
                    rows.append(_row(size, mind))
                    if not options["json"]:
                        self._say(rows[-1])
        except ServiceError as error:
            raise CommandError(str(error)) from None
        version = software().get("version")
        found = calibration.as_json(
            rows, at=timezone.now().isoformat(timespec="seconds"), version=version
        )
        calibration.store(settings.DATA, found)
        if options["json"]:
            self.stdout.write(json.dumps(found))
        else:
            largest = found["largest_valid"]
            self.stdout.write(f"the largest Shard that stays VALID here: {largest}")

    def _say(self, row: calibration.Row) -> None:
        self.stdout.write(
            f"{row.size:>6,} sandboxes  {row.level:<8}"
            f" delay P99 {row.harness_delay_p99_ms} ms"
            f"  lag {row.loop_lag_ms} ms  CPU {row.loop_cpu_pct} %"
        )
        self.stdout.flush()


def _sizes(text: str) -> list[int]:
    try:
        sizes = sorted({int(word) for word in text.split(",")})
    except ValueError:
        raise CommandError("--sizes is a list of numbers, like 10,100") from None
    if not sizes or sizes[0] < 1 or sizes[-1] > 10_000:
        raise CommandError("a Shard holds 1 to 10,000 sandboxes")
    return sizes


def _row(size: int, mind: Mind) -> calibration.Row:
    run = create_run(checked_plan(calibration.calibrating_plan(size)), None)
    launch(run, "calibrate")
    wait_until_sealed(run, mind, quiet=True)
    run.refresh_from_db()
    return calibration.row_of(size, run.code, run.summary or {})
