"""A Run's progress in the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable

from django.db import close_old_connections
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from runs import supervise
from runs.models import Run, State

POLL_S = 0.5
WAIT_S_MAX = 48 * 3600
_SAYS = {
    State.QUEUED: "waiting for its turn",
    State.PROVISIONING: "starting agents",
    State.ARMING: "agents connect and synchronise clocks",
    State.BURSTING: "creating sandboxes",
    State.HOLDING: "holding all of them alive, probing",
    State.TEARING_DOWN: "final probes, then tearing down together",
    State.COLLECTING: "collecting and judging the record",
    State.SEALED: "sealed",
}


def wait_until_sealed(run: Run, mind: Callable[[], None], *, quiet: bool) -> None:
    """Show progress on stderr until the Run is sealed (at most WAIT_S_MAX)."""
    console = Console(stderr=True, quiet=quiet)
    total = int(run.plan["sandbox_count"])
    columns = (
        TextColumn("[bold]{task.description:<52}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
    )
    deadline = time.monotonic() + WAIT_S_MAX
    with Progress(*columns, console=console, refresh_per_second=4) as progress:
        task = progress.add_task("queued", total=total, figures="")
        state = ""
        while time.monotonic() < deadline:
            run.refresh_from_db()
            counts = supervise.progress(run)
            if run.state != state:
                state = run.state
                says = _SAYS.get(State(state), "")
                if not console.is_terminal:
                    console.print(f"{state}: {says}")
            figures = (
                f"alive {counts['alive']:,} of {total:,} · sent {counts['sent']:,} · "
                f"failed {counts['failed'] + counts['dead']:,}"
            )
            progress.update(
                task,
                description=f"{state}: {_SAYS.get(State(state), '')}",
                completed=counts["ready"],
                figures=figures,
            )
            if run.state == State.SEALED:
                return
            mind()
            close_old_connections()
            time.sleep(POLL_S)
