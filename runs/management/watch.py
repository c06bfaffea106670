"""A Run's progress in the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable

from django.db import close_old_connections
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from runs import told
from runs.models import Run, State

POLL_S = 0.5
POLL_SHARE = 0.02  # of the time, at most; the Run is on this machine
WAIT_S_MAX = 48 * 3600
_SAYS = {
    State.QUEUED: "waiting for its turn",
    State.PROVISIONING: "starting agents",
    State.ARMING: "agents connect and synchronise clocks",
    State.BURSTING: "creating sandboxes",
    State.HOLDING: "holding all of them alive, probing",
    State.TEARING_DOWN: "final probes, then tearing down together",
    State.COLLECTING: "collecting and judging the record",
    State.SEALED: "judged, and its manifest written",
    State.DRAFT: "not launched",
}


def wait_until_sealed(run: Run, mind: Callable[[], None], *, quiet: bool) -> None:
    """Show progress on stderr until the Run is sealed (at most WAIT_S_MAX).

    A line a phase; in a terminal the current phase has a live bar.
    """
    console = Console(stderr=True, quiet=quiet, highlight=False)
    total = int(run.plan["sandbox_count"])
    columns = (
        TextColumn("  "),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
    )
    deadline = time.monotonic() + WAIT_S_MAX
    live = console.is_terminal and not quiet
    with Progress(
        *columns,
        console=console,
        refresh_per_second=4,
        transient=True,
        disable=not live,
    ) as progress:
        task = progress.add_task("", total=total, figures="")
        state = ""
        while time.monotonic() < deadline:
            run.refresh_from_db()
            if run.state != state:
                state = run.state
                name = state.replace("_", " ")
                console.print(f"{name:<13} {_SAYS[State(state)]}")
            if run.state == State.SEALED:
                return
            began = time.thread_time()
            counts = told.gauges(run, told.last_beats(run)).progress
            took_s = time.thread_time() - began
            failed = counts["failed"] + counts["dead"]
            progress.update(
                task,
                completed=counts["alive"],
                figures=f"{counts['alive']:,} of {total:,} alive, {failed:,} failed",
            )
            mind()
            close_old_connections()
            time.sleep(max(POLL_S, took_s / POLL_SHARE))
