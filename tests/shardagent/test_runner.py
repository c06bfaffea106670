"""Whose fault a call is that was not answered in time."""

from __future__ import annotations

import pytest

from shardagent.calls import Call, Verb
from shardagent.deadlines import timed_out
from shardagent.errors import Cause, Origin


@pytest.mark.parametrize(
    ("late_us", "sent", "cause", "origin"),
    [
        (2_000, True, Cause.TIMEOUT, Origin.PROVIDER),
        (2_000, False, Cause.TIMEOUT, Origin.NETWORK),
        (1_000_001, True, Cause.HARNESS, Origin.HARNESS),
        (20_000_000, False, Cause.HARNESS, Origin.HARNESS),
    ],
    ids=["no-answer", "not-sent", "late", "stopped"],
)
def test_a_stalled_agent_blames_nobody_else(
    late_us: int, cause: Cause, origin: Origin, *, sent: bool
) -> None:
    error = timed_out(Call(Verb.PROBE, 10), late_us, sent=sent)
    assert (error.cause, error.origin) == (cause, origin)
