"""Who works on a Run: one worker at a time for each kind of work.

A claim is an instant on the Run's clock until which its holder has the work to itself.
That clock does not step with the host's wall clock, so a step neither frees a claim
early nor keeps it for an hour.
"""

from __future__ import annotations

from typing import Literal

from django.db.models import Q

from runs import lifecycle
from runs.models import Run

CLAIM_S_MAX = 3_600
Work = Literal["tick", "ingest", "seal", "reap", "provision"]


def take(run_id: int, work: Work, seconds: float) -> bool:
    """Take one kind of work on a Run for `seconds`; False where another has it.

    A claim that lies further ahead than any can was made on a clock that is no more
    (a Run without a clock of its own yet, a host that was started anew): it is free.
    """
    assert 0 < seconds <= CLAIM_S_MAX
    run = Run.objects.filter(pk=run_id).first()
    if run is None:
        return False
    now = lifecycle.now_us(run)
    column = f"{work}_until_us"
    over = Q(**{f"{column}__lt": now})
    unreal = Q(**{f"{column}__gt": now + CLAIM_S_MAX * 1_000_000})
    free = Run.objects.filter(over | unreal, pk=run_id)
    return bool(free.update(**{column: now + round(seconds * 1e6)}))


def give_back(run_id: int, *works: Work) -> None:
    """The work is done, or left to the next."""
    if works:
        done = {f"{work}_until_us": 0 for work in works}
        Run.objects.filter(pk=run_id).update(**done)
