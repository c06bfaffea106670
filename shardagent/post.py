"""What a process says of one attempt, and what it still waits to have heard of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from shardagent.runner import Runner
from shardagent.spool import ShardSpool
from shardagent.wire import (
    CAUSE_MESSAGE_MAX,
    SEGMENTS_PER_BEAT_MAX,
    Beat,
    CauseCount,
    ShardPhase,
)


@dataclass(slots=True, eq=False)
class Post:
    """One attempt that this process answers for; runner is None once it is over."""

    spool: ShardSpool
    leftover: bool = False  # of an attempt that is no more this process's
    runner: Runner | None = None
    causes_told: int = 0  # ends of Sandboxes whose cause the site knows
    stored: bool = False  # all of the record is: beats may say how it finished
    left: bool = False  # said, or given up
    acknowledged: asyncio.Event = field(default_factory=asyncio.Event)

    def beat(self) -> Beat:
        """What to say of it; finished only where all reports fit beside it."""
        lease = self.spool.lease
        reports = [
            report for stream in self.spool.streams for report in stream.unacknowledged
        ]
        last = self.stored and len(reports) <= SEGMENTS_PER_BEAT_MAX
        beat = Beat(
            shard=lease.shard,
            attempt=lease.attempt,
            phase=ShardPhase.FINISHED,
            segments=reports[:SEGMENTS_PER_BEAT_MAX],
            events_dropped=self.spool.dropped,
            finished=self.spool.finish if last else None,
        )
        if self.runner is None:
            return beat
        shard = self.runner.shard
        update = {
            "phase": shard.phase,
            "connections": shard.warmth.connections,
            "clock_samples": shard.times.samples(),
            "counts": shard.counts(),
            "causes": self._causes(shard.record.causes),
            "in_flight": self.runner.in_flight,
            "queued_events": self.spool.events.queued,
            "heard": shard.times.heard,
        }
        return beat.model_copy(update=update)

    def _causes(self, counted: list[CauseCount]) -> list[CauseCount] | None:
        """All of them where the site does not know the latest, without secrets."""
        if _ends(counted) == self.causes_told:
            return None
        return [
            one.model_copy(update={"message": self._shown(one.message)})
            for one in counted
        ]

    def _shown(self, message: str) -> str:
        """Cleaned whole: half a secret would not be known as one."""
        return self.spool.clean(message)[:CAUSE_MESSAGE_MAX]

    def unheard(self) -> None:
        """It is not known whether the site has the last beat."""
        self.causes_told = 0

    def heard(self, beat: Beat) -> None:
        """The site has this beat."""
        for stream in self.spool.streams:
            told = sum(1 for report in beat.segments if report.kind == stream.kind)
            stream.acknowledge(told)
        if beat.causes is not None:
            self.causes_told = _ends(beat.causes)
        if beat.finished is not None:
            self.left = True
            self.acknowledged.set()


def _ends(counted: Iterable[CauseCount]) -> int:
    return sum(one.count for one in counted)
