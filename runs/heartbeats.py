"""Heartbeats, group-committed: many requests, one transaction, each one durable.

A request waits until the batch that holds it is committed. The batch also reads what
the answer needs (who may speak, the shared instants, who is fenced), once for all its
requests: the thread that serves a request never asks the database.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import lru_cache

import orjson
from django.db import close_old_connections, connection, transaction
from django.db.models.fields.json import KT

from runs import lifecycle
from runs.clock import RunClock
from runs.errors import StateError
from runs.models import Attempt, Host, Run, State
from shardagent.wire import CauseCount, HeartbeatRequest, Instants, Lease

GATHER_S = 0.01
BATCH_MAX = 200  # requests a transaction
WAIT_S_MAX = 15.0  # that a request waits for its commit
RUNS_KNOWN_MAX = 1_000
RUN_FIELDS = (
    *("code", "state", "leave", "t0_us", "t_hold_us", "t_end_us", "t_destroy_us"),
    *("clock_base_wall_us", "clock_base_mono_ns", "clock_boot_id"),
)
_UPDATE = """
UPDATE runs_attempt SET phase = %s, heard_at_us = %s, connections = %s,
 clock_samples = %s, heard_t0 = %s, heard_t_end = %s, sent = %s, created = %s,
 ready = %s, failed = %s, dead = %s, alive = %s, destroyed = %s, orphaned = %s,
 final_ok = COALESCE(%s, final_ok), causes = COALESCE(%s, causes),
 in_flight = %s, queued_events = %s, loop_lag_us = %s, cpu_pct = %s,
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
    """What the answer to one request says, besides its second timestamp of ours."""

    clock: RunClock
    at_us: int  # when the request came, on the Run's clock
    instants: Instants
    leave: str | None
    state: str
    interval_s: float  # the Plan's
    fenced: list[Lease]


@dataclass(slots=True)
class _Waiting:
    at_ns: int  # CLOCK_MONOTONIC_RAW: the Run, and so its clock, is looked up later
    request: HeartbeatRequest
    done: Future[Heard] = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class _Taken:
    """A request that is to be written down: of a host, at an instant of its Run."""

    request: HeartbeatRequest
    run: Run
    host_id: int
    at_us: int


class Desk:
    """Takes heartbeat requests of this process; one committing thread."""

    def __init__(self) -> None:
        self._queue: queue.Queue[_Waiting] = queue.Queue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def hear(self, request: HeartbeatRequest, at_ns: int) -> Heard:
        """Record and wait for the commit.

        Raises TimeoutError after WAIT_S_MAX, StateError where the host is to leave.
        """
        self._start()
        waiting = _Waiting(at_ns, request)
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
            # A transaction costs more than a beat: those that come meanwhile share it.
            time.sleep(GATHER_S)  # noqa: TID251
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
                if isinstance(answer, StateError):
                    waiting.done.set_exception(answer)
                else:
                    waiting.done.set_result(answer)


def record(batch: Sequence[_Waiting]) -> list[Heard | StateError]:
    """Write one batch in one transaction; answers in the order of the batch."""
    with transaction.atomic():
        runs = _runs({waiting.request.run for waiting in batch})
        hosts = _hosts(batch, runs)
        looked_at = [_taken(waiting, runs, hosts) for waiting in batch]
        taken = [one for one in looked_at if isinstance(one, _Taken)]
        with connection.cursor() as cursor:
            rows = list(_beat_rows(taken))
            cursor.executemany(_UPDATE, rows)
            all_speak = cursor.rowcount == len(rows)
            segments = list(_segment_rows(taken))
            if segments:
                cursor.executemany(_SEGMENT, segments)
        fenced = {} if all_speak else _fenced({one.host_id for one in taken})
    return [
        _heard(one, fenced.get(one.host_id, [])) if isinstance(one, _Taken) else one
        for one in looked_at
    ]


def _runs(codes: set[str]) -> dict[str, Run]:
    found = Run.objects.filter(code__in=codes).only(*RUN_FIELDS)
    return {run.code: run for run in found}


@lru_cache(maxsize=RUNS_KNOWN_MAX)
def _interval_s(code: str) -> float:
    """Of the Plan, which no longer changes once agents speak, and is large."""
    plan = Run.objects.values_list("plan", flat=True).get(code=code)
    return float(plan.get("heartbeat_interval_s", 2))


def _hosts(
    batch: Sequence[_Waiting], runs: Mapping[str, Run]
) -> dict[tuple[str, int], tuple[int, str]]:
    """(Run, index) → (id, the process that speaks for it, "" where none is known)."""
    wanted: dict[str, set[int]] = {}
    for waiting in batch:
        wanted.setdefault(waiting.request.run, set()).add(waiting.request.host)
    found = {}
    for code, run in runs.items():
        rows = Host.objects.filter(run=run, index__in=wanted[code])
        # As text: as JSON, a process that is called 12e45 would read as a number.
        process_of = KT("facts__process")
        for pk, index, process in rows.values_list("pk", "index", process_of):
            found[code, index] = (pk, process or "")
    return found


def _taken(
    waiting: _Waiting,
    runs: Mapping[str, Run],
    hosts: Mapping[tuple[str, int], tuple[int, str]],
) -> _Taken | StateError:
    request = waiting.request
    code, index = request.run, request.host
    run, host = runs.get(code), hosts.get((code, index))
    if run is None or host is None:
        return StateError(f"Run {code} has no host {index}; leave")
    if run.state == State.SEALED:
        return StateError(f"Run {code} is sealed; leave")
    host_id, process = host
    if is_another(request.process, process):
        return StateError(f"host {index} is another process's now; leave")
    at_us = lifecycle.clock_of(run).at_us(waiting.at_ns)
    return _Taken(request, run, host_id, at_us)


def is_another(process: str, known: str) -> bool:
    """Only the process that registered last speaks for a host."""
    return bool(process and known and process != known)


def _heard(one: _Taken, fenced: list[Lease]) -> Heard:
    run = one.run
    return Heard(
        clock=lifecycle.clock_of(run),
        at_us=one.at_us,
        instants=Instants(
            t0_us=run.t0_us,
            t_hold_us=run.t_hold_us,
            t_end_us=run.t_end_us,
            t_destroy_us=run.t_destroy_us,
        ),
        leave=run.leave or None,
        state=run.state,
        interval_s=_interval_s(run.code),
        fenced=fenced,
    )


def _beat_rows(
    taken: Iterable[_Taken],
) -> Iterable[tuple[str | float | bool | None, ...]]:
    for one in taken:
        for beat in one.request.beats:
            counts = beat.counts
            yield (
                beat.phase.value,
                one.at_us,
                beat.connections,
                beat.clock_samples,
                beat.heard.t0_us is not None,
                beat.heard.t_end_us is not None,
                *(counts.sent, counts.created, counts.ready, counts.failed),
                *(counts.dead, counts.alive, counts.destroyed, counts.orphaned),
                *(counts.final_ok, _packed(beat.causes)),
                *(beat.in_flight, beat.queued_events),
                *(one.request.loop_lag_us, one.request.cpu_pct),
                beat.events_dropped,
                beat.finished.value if beat.finished else "",
                *(one.run.pk, beat.shard, beat.attempt, one.host_id),
            )


def _packed(causes: list[CauseCount] | None) -> str | None:
    if causes is None:  # as before
        return None
    return orjson.dumps([one.model_dump() for one in causes]).decode()


def _segment_rows(taken: Iterable[_Taken]) -> Iterable[tuple[str | int | bool, ...]]:
    for one in taken:
        for beat in one.request.beats:
            for segment in beat.segments:
                yield (
                    *(one.run.pk, beat.shard, beat.attempt),
                    *(segment.kind, segment.seq, segment.sha256),
                    *(segment.bytes, segment.events, one.at_us, False),
                    *(one.run.pk, beat.shard, beat.attempt, one.host_id),
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
