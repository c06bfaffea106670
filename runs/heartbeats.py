"""Heartbeats, group-committed: many requests, one transaction, each one durable.

A request waits until the batch that holds it is committed. The batch also reads what
the answer needs (the shared instants, who is fenced), once per Run and not per Shard.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from django.db import close_old_connections, connection, transaction

from runs.models import Attempt, Run
from shardagent.wire import HeartbeatRequest, Instants, Lease

BATCH_MAX = 200  # requests a transaction
WAIT_S_MAX = 15.0  # that a request waits for its commit
_UPDATE = """
UPDATE runs_attempt SET phase = %s, heard_at_us = %s, connections = %s,
 clock_samples = %s, heard_t0 = %s, heard_t_end = %s, sent = %s, created = %s,
 ready = %s, failed = %s, dead = %s, alive = %s, destroyed = %s, orphaned = %s,
 events_dropped = %s, finished = %s
WHERE run_id = %s AND shard = %s AND number = %s AND host_id = %s
 AND fenced_at_us IS NULL
"""
_SEGMENT = """
INSERT INTO runs_segment
 (run_id, shard, attempt, kind, seq, sha256, bytes, events, reported_at_us, ingested)
SELECT %s, %s, %s, %s, %s, %s, %s, %s, %s, %s
WHERE EXISTS (SELECT 1 FROM runs_attempt
 WHERE run_id = %s AND shard = %s AND number = %s AND host_id = %s)
ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class Heard:
    """What the answer to one request says, besides its timestamps."""

    instants: Instants
    leave: str | None
    state: str
    fenced: list[Lease]


@dataclass(slots=True)
class _Waiting:
    run_id: int
    host_id: int
    at_us: int
    request: HeartbeatRequest
    done: Future[Heard] = field(default_factory=Future)


class Desk:
    """Takes heartbeat requests of this process; one committing thread."""

    def __init__(self) -> None:
        self._queue: queue.Queue[_Waiting] = queue.Queue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def hear(
        self, run_id: int, host_id: int, at_us: int, request: HeartbeatRequest
    ) -> Heard:
        """Record and wait for the commit. Raises TimeoutError after WAIT_S_MAX."""
        self._start()
        waiting = _Waiting(run_id, host_id, at_us, request)
        self._queue.put(waiting)
        return waiting.done.result(timeout=WAIT_S_MAX)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._work, name="heartbeats", daemon=True
                )
                self._thread.start()

    def _work(self) -> None:
        while True:
            batch = [self._queue.get()]
            while len(batch) < BATCH_MAX:
                try:
                    batch.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            try:
                answers = record(batch)
            except Exception as error:  # every waiting request learns of it
                close_old_connections()
                for waiting in batch:
                    waiting.done.set_exception(error)
                time.sleep(0.05)  # noqa: TID251  the database may need a breath
                continue
            for waiting, answer in zip(batch, answers, strict=True):
                waiting.done.set_result(answer)


def record(batch: Sequence[_Waiting]) -> list[Heard]:
    """Write one batch in one transaction; answers in the order of the batch."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.executemany(_UPDATE, list(_beat_rows(batch)))
            segments = list(_segment_rows(batch))
            if segments:
                cursor.executemany(_SEGMENT, segments)
        runs = Run.objects.in_bulk({waiting.run_id for waiting in batch})
        fenced = _fenced({waiting.host_id for waiting in batch})
    return [
        Heard(
            instants=Instants(
                t0_us=run.t0_us,
                t_hold_us=run.t_hold_us,
                t_end_us=run.t_end_us,
                t_destroy_us=run.t_destroy_us,
            ),
            leave=run.leave or None,
            state=run.state,
            fenced=fenced.get(waiting.host_id, []),
        )
        for waiting in batch
        for run in (runs[waiting.run_id],)
    ]


def _beat_rows(batch: Iterable[_Waiting]) -> Iterable[tuple[str | int | bool, ...]]:
    for waiting in batch:
        for beat in waiting.request.beats:
            counts = beat.counts
            yield (
                beat.phase.value,
                waiting.at_us,
                beat.connections,
                beat.clock_samples,
                beat.heard.t0_us is not None,
                beat.heard.t_end_us is not None,
                *(counts.sent, counts.created, counts.ready, counts.failed),
                *(counts.dead, counts.alive, counts.destroyed, counts.orphaned),
                beat.events_dropped,
                beat.finished.value if beat.finished else "",
                *(waiting.run_id, beat.shard, beat.attempt, waiting.host_id),
            )


def _segment_rows(batch: Iterable[_Waiting]) -> Iterable[tuple[str | int | bool, ...]]:
    for waiting in batch:
        for beat in waiting.request.beats:
            for segment in beat.segments:
                yield (
                    *(waiting.run_id, beat.shard, beat.attempt),
                    *(segment.kind, segment.seq, segment.sha256),
                    *(segment.bytes, segment.events, waiting.at_us, False),
                    *(waiting.run_id, beat.shard, beat.attempt, waiting.host_id),
                )


def _fenced(hosts: set[int]) -> dict[int, list[Lease]]:
    rows = Attempt.objects.filter(
        host_id__in=hosts, fenced_at_us__isnull=False
    ).values_list("host_id", "shard", "number")
    found: dict[int, list[Lease]] = {}
    for host_id, shard, number in rows:
        found.setdefault(host_id, []).append(Lease(shard=shard, attempt=number))
    return found


desk = Desk()
