"""How many Sandboxes of a Shard are in which state, kept without counting them."""

from __future__ import annotations

from shardagent.record import TalliedRecord
from shardagent.sandbox import UNSETTLED, Sandbox, State
from shardagent.wire import Counts, Kind


class Gauges:
    """Of one Shard; every change of a Sandbox passes through `change` or `moved`."""

    def __init__(self, sandboxes: int) -> None:
        self.unsettled = sandboxes
        self.open = sandboxes
        self.lost = 0
        self.alive = 0

    def counts(self, record: TalliedRecord) -> Counts:
        """For the heartbeat, with the events so far."""
        tally = record.tally
        return Counts(
            sent=tally[Kind.CREATE_SENT],
            created=tally[Kind.CREATED],
            ready=tally[Kind.READY],
            failed=tally[Kind.CREATE_FAILED] + tally[Kind.READINESS_FAILED],
            dead=tally[Kind.DEAD],
            alive=self.alive,
            destroyed=tally[Kind.DESTROYED],
            orphaned=tally[Kind.ORPHANED],
            final_ok=record.final_ok,
        )

    def moved(self, sandbox: Sandbox, state: State, *, alive: bool) -> None:
        """From that state, and alive or not, it came to what it is now."""
        self.unsettled -= sandbox.settled - (state not in UNSETTLED)
        self.open -= (sandbox.state is State.CLOSED) - (state is State.CLOSED)
        self.lost += (sandbox.state is State.LOST) - (state is State.LOST)
        self.alive += sandbox.alive - alive

    def change(self, sandbox: Sandbox) -> Change:
        """Around one change of a Sandbox."""
        return Change(self, sandbox)


class Change:
    """Keeps the gauges in step."""

    __slots__ = ("_before", "_gauges", "_sandbox")

    def __init__(self, gauges: Gauges, sandbox: Sandbox) -> None:
        self._gauges = gauges
        self._sandbox = sandbox
        self._before = (sandbox.state, sandbox.alive)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        gauges, sandbox = self._gauges, self._sandbox
        state, alive = self._before
        if sandbox.state is not state or sandbox.alive is not alive:
            gauges.moved(sandbox, state, alive=alive)
