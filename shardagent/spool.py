"""The record of each Shard on its way to object storage: buffers, segments, disk.

Lines are gathered in memory, cut into segments (zstd), written to the spool
directory and forgotten once they are stored. A restarted agent finds there what was
not yet stored, and where the numbering goes on. Compressing and writing happen in a
thread: a slow disk must not stall the loop that measures.

    <spool>/<run>/<shard:05d>-<attempt:02d>/
        events-000003.zst  log-000001.zst  state.json  released
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import orjson

from shardagent import zstd
from shardagent.scrub import Scrubber
from shardagent.wire import Finish, Kind, Lease, SegmentReport

LINE = orjson.OPT_APPEND_NEWLINE
# A member that is looked up in its class costs as much as a call of a function.
RELEASED, AGENT_FINISHED = Kind.RELEASED, Kind.AGENT_FINISHED
SEGMENT_BYTES_MAX = 1 << 20  # before compression
SPOOL_BYTES_MAX = 512 << 20  # on disk, all Shards of the process
MEMORY_BYTES_MAX = 16 << 20  # of that also in memory, so that it is not read again
LOG_LINE_MAX = 2_000  # characters
ZSTD_LEVEL = 1
GOLDEN_RATIO = 0.618034
HEADER_RESERVE = 64  # room for a log segment's first line

logger = logging.getLogger("shardagent")
StreamKind = Literal["events", "log"]
_SEGMENT_NAME = re.compile(r"(events|log)-(\d{6})\.zst")


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment waiting to be stored: on disk, and in memory while there is room.

    Where the disk is full it is in memory alone: stored like the rest, but it does not
    outlive the process.
    """

    path: Path
    report: SegmentReport
    content: bytes | None = None

    def read(self) -> bytes:
        return self.path.read_bytes() if self.content is None else self.content


class Spool:
    """The directory, and the bound on what all Shards of a process keep in it."""

    def __init__(
        self, directory: Path, run: str, *, bytes_max: int = SPOOL_BYTES_MAX
    ) -> None:
        self.used_bytes = 0
        self.memory_bytes = 0  # of that, what need not be read again
        self.bytes_max = bytes_max
        self._directory = directory / run
        self._directory.mkdir(parents=True, exist_ok=True)

    def open(self, lease: Lease, scrubber: Scrubber) -> ShardSpool:
        """The spool of one attempt, with what an earlier process left in it."""
        name = f"{lease.shard:05d}-{lease.attempt:02d}"
        return ShardSpool(self, lease, self._directory / name, scrubber)

    def leases(self) -> list[Lease]:
        """All attempts that something is left of."""
        found = []
        for folder in sorted(self._directory.iterdir()):
            shard, _, attempt = folder.name.partition("-")
            if shard.isdigit() and attempt.isdigit():
                found.append(Lease(shard=int(shard), attempt=int(attempt)))
        return found


@dataclass(slots=True, eq=False)
class Cut:
    """Lines on their way to disk: chunks in, reports out; made in a thread."""

    stream: Stream
    seq: int
    first: int  # number of the first line
    chunks: list[list[bytes]]
    room: int  # bytes that the spool still takes
    earlier: list[SegmentReport]
    reports: list[SegmentReport] = field(default_factory=list)
    contents: dict[int, bytes] = field(default_factory=dict)  # by seq
    refused: set[int] = field(default_factory=set)  # of these: not on disk
    dropped: int = 0

    @property
    def end(self) -> int:
        """The number of the first line after these."""
        return self.first + sum(map(len, self.chunks))

    def write(self) -> None:
        """Make a segment of each chunk."""
        first = self.first
        for lines in self.chunks:
            body = b"".join(lines)
            if self.stream.kind == "log":
                body = b"#first_line %d\n" % first + body
            first += len(lines)
            stored = zstd.compress(body, ZSTD_LEVEL)
            if len(stored) > self.room:
                # The gap in n is what tells readers that facts are missing.
                self.dropped += len(lines)
                continue
            self.room -= len(stored)
            seq = self.seq + len(self.reports)
            try:
                _write(self.stream.path(seq), stored)
            except OSError as error:
                logger.error("segment %d is kept in memory: %s", seq, error)
                self.refused.add(seq)
            self.contents[seq] = stored
            self.reports.append(self.stream.report(seq, stored, len(lines)))

    def state(self) -> dict[str, object]:
        """What a restart needs to go on after this."""
        segments = [report.model_dump() for report in self.earlier + self.reports]
        seq = self.seq + len(self.reports)
        return {"seq": seq, "count": self.end, "segments": segments}


class Stream:
    """One kind of segment of one attempt: lines in, numbered segments out."""

    def __init__(self, spool: Spool, kind: StreamKind, folder: Path) -> None:
        self.kind = kind
        self.next_seq = 0
        self.count = 0  # lines ever numbered: n of the next event
        self.dropped = 0
        self.oldest_us: int | None = None  # of what is not cut yet
        self.waiting: deque[Segment] = deque()  # cut, not stored
        self.unacknowledged: deque[SegmentReport] = deque()  # stored
        self._spool = spool
        self._folder = folder
        self._lines: list[bytes] = []
        self._full: list[list[bytes]] = []  # chunks that can take no more
        self._size = 0
        self._cutting = 0

    @property
    def queued(self) -> int:
        """Lines that are not on disk."""
        return len(self._lines) + sum(map(len, self._full)) + self._cutting

    def add(self, line: bytes, at: int) -> None:
        """Number one more line; a chunk ends where it would grow too big."""
        if self._size + len(line) + HEADER_RESERVE > SEGMENT_BYTES_MAX:
            self._end_chunk()
        if self.oldest_us is None:
            self.oldest_us = at
        self._lines.append(line)
        self._size += len(line)
        self.count += 1

    def _end_chunk(self) -> None:
        if self._lines:
            self._full.append(self._lines)
            self._lines = []
            self._size = 0

    def flush_due(self, now: int, interval_us: int, phase: float = 0.0) -> bool:
        """Whether a flush instant has passed since the oldest line.

        Instants are interval_us apart, shifted by phase (a share of it), so that the
        Shards of a process do not all flush at once and no line waits longer.
        """
        if self.oldest_us is None:
            return False
        shift_us = int(phase * interval_us)
        passed = (now - shift_us) // interval_us
        return passed > (self.oldest_us - shift_us) // interval_us

    def take(self, *, hold: bool = False) -> Cut:
        """What is in memory, to be written; nothing of it with `hold`."""
        first = self.count - self.queued
        chunks: list[list[bytes]] = []
        if not hold:
            self._end_chunk()
            chunks, self._full = self._full, []
            self._cutting = sum(map(len, chunks))
            self.oldest_us = None
        room = self._spool.bytes_max - self._spool.used_bytes
        return Cut(self, self.next_seq, first, chunks, room, list(self.reports()))

    def keep(self, cut: Cut) -> None:
        """It is written."""
        self._cutting = 0
        self.dropped += cut.dropped
        self.next_seq = cut.seq + len(cut.reports)
        for report in cut.reports:
            content: bytes | None = cut.contents[report.seq]
            full = self._spool.memory_bytes + report.bytes > MEMORY_BYTES_MAX
            if full and report.seq not in cut.refused:
                content = None
            self._keep(report, content)

    def stored(self, segment: Segment) -> None:
        """The oldest waiting segment is in object storage."""
        assert self.waiting[0] is segment
        self.waiting.popleft()
        self._spool.used_bytes -= segment.report.bytes
        self._spool.memory_bytes -= len(segment.content or b"")
        segment.path.unlink(missing_ok=True)
        self.unacknowledged.append(segment.report)

    def acknowledge(self, count: int) -> None:
        """The site has heard of the oldest `count` stored segments."""
        for _ in range(count):
            self.unacknowledged.popleft()

    def reports(self) -> Iterator[SegmentReport]:
        """All segments of which the site has not heard."""
        yield from self.unacknowledged
        for segment in self.waiting:
            yield segment.report

    def restore(self, seq: int, count: int, reports: list[SegmentReport]) -> None:
        """Go on where an earlier process stopped."""
        self.next_seq, self.count = seq, count
        for report in reports:
            if self.path(report.seq).exists():
                self._keep(report)
            else:
                self.unacknowledged.append(report)
        # A segment written in the instant before the state was.
        while self.path(self.next_seq).exists():
            stored = self.path(self.next_seq).read_bytes()
            body = zstd.decompress(stored)
            lines = body.count(b"\n") - (self.kind == "log")
            report = self.report(self.next_seq, stored, lines)
            self.next_seq += 1
            self.count += lines
            self._keep(report)

    def report(self, seq: int, stored: bytes, lines: int) -> SegmentReport:
        """A segment as heartbeats tell of it."""
        return SegmentReport(
            kind=self.kind,
            seq=seq,
            sha256=hashlib.sha256(stored).hexdigest(),
            bytes=len(stored),
            events=lines,
        )

    def _keep(self, report: SegmentReport, content: bytes | None = None) -> None:
        self._spool.used_bytes += report.bytes
        self._spool.memory_bytes += len(content or b"")
        self.waiting.append(Segment(self.path(report.seq), report, content))

    def path(self, seq: int) -> Path:
        """Where a segment is until it is stored."""
        return self._folder / f"{self.kind}-{seq:06d}.zst"


class ShardSpool:
    """The record of one attempt; what shard.py writes its facts to."""

    def __init__(
        self, spool: Spool, lease: Lease, folder: Path, scrubber: Scrubber
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.lease = lease
        self.phase = lease.shard * GOLDEN_RATIO % 1  # of its flushes; spread evenly
        self.events = Stream(spool, "events", folder)
        self.lines = Stream(spool, "log", folder)
        self.streams = (self.events, self.lines)
        self.released = False  # a create may have been sent
        self.resumed = False  # an earlier process wrote here
        self.finish: Finish | None = None  # agent_finished is written: nothing follows
        self.before_finish: Callable[[], None] | None = None  # what else is to be told
        self._finish_cut: Finish | None = None
        self._scrubber = scrubber
        self._folder = folder
        self._state = folder / "state.json"
        self._released = folder / "released"
        self.flushing = asyncio.Lock()
        self._restore()

    @property
    def sealed(self) -> bool:
        """The record is complete."""
        return self.finish is not None

    @property
    def dropped(self) -> int:
        """Events the bound on the spool cost."""
        return self.events.dropped

    @property
    def stored(self) -> bool:
        """Nothing is left that is not in object storage."""
        return not any(stream.waiting or stream.queued for stream in self.streams)

    def event(
        self, kind: Kind, at: int, sandbox: int | None = None, **fields: object
    ) -> None:
        """Write one event."""
        self.note(kind, at, sandbox, fields)

    def note(
        self, kind: Kind, at: int, sandbox: int | None, fields: dict[str, object]
    ) -> None:
        """The same; passing names along costs as much as writing them."""
        if self.finish is not None:
            return
        if kind is AGENT_FINISHED and self.before_finish is not None:
            self.before_finish()
        message = fields.get("message")
        if isinstance(message, str) and message:
            fields["message"] = self.clean(message)
        event: dict[str, object] = {
            "v": 1,
            "n": self.events.count,
            "at": at,
            "kind": kind._value_,
        }
        if sandbox is not None:
            event["sandbox"] = sandbox
        event.update(fields)
        self.events.add(orjson.dumps(event, option=LINE), at)
        if kind is RELEASED:
            self.released = True
            self._mark_released()
        if kind is AGENT_FINISHED:
            self.finish = Finish(str(fields["reason"]))

    def clean(self, text: str) -> str:
        """Without the secrets of this process."""
        return self._scrubber.clean(text)

    def log(self, at: int, level: str, text: str) -> None:
        """Write one log line."""
        if self.sealed:
            return
        text = " ".join(self.clean(text).split())[:LOG_LINE_MAX]
        self.lines.add(f"{at} {level} {text}\n".encode(errors="replace"), at)

    def end(self, at: int) -> None:
        """Finish a record that its Shard did not finish."""
        if not self.sealed:
            self.event(Kind.AGENT_FINISHED, at, reason=Finish.ERROR)

    def forget(self) -> None:
        """Everything is stored and the site knows: leave nothing on disk."""
        self._state.unlink(missing_ok=True)
        self._released.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    async def flush(self, *streams: Stream) -> None:
        """Make segments of what is in memory, without holding up the loop."""
        async with self.flushing:
            await _write_all([(self, streams)])

    def cut(self, *streams: Stream) -> None:
        """The same at once, where nothing else flushes."""
        cuts = self.cuts(streams)
        self.write(cuts)
        self.kept(cuts)

    def cuts(self, streams: Sequence[Stream]) -> list[Cut]:
        """What is to be written of these streams; of all of them where empty."""
        chosen = streams or self.streams
        if self.events in chosen:
            self._finish_cut = self.finish  # on disk together with its event
        return [stream.take(hold=stream not in chosen) for stream in self.streams]

    def write(self, cuts: list[Cut]) -> None:
        """Segments and state to disk; in any thread."""
        for cut in cuts:
            cut.write()
        state: dict[str, object] = {cut.stream.kind: cut.state() for cut in cuts}
        try:
            _write(self._state, orjson.dumps(state | {"finish": self._finish_cut}))
        except OSError as error:
            logger.error("the spool's state is not written: %s", error)

    def kept(self, cuts: list[Cut]) -> None:
        """They are written."""
        for cut in cuts:
            if cut.chunks:
                cut.stream.keep(cut)

    def _restore(self) -> None:
        self.released = self._released.exists()
        if not self._state.exists():
            return
        self.resumed = True
        state = orjson.loads(self._state.read_bytes())
        self.finish = Finish(state["finish"]) if state["finish"] else None
        self._finish_cut = self.finish
        for stream in self.streams:
            kept = state[stream.kind]
            reports = [SegmentReport(**report) for report in kept["segments"]]
            stream.restore(kept["seq"], kept["count"], reports)

    def _mark_released(self) -> None:
        try:
            self._released.touch()
        except OSError as error:
            logger.error("RELEASE is not noted on disk: %s", error)


async def flush_together(due: Sequence[tuple[ShardSpool, Sequence[Stream]]]) -> None:
    """Flush these in one go of a thread; whoever is being flushed is left out."""
    free = [(spool, streams) for spool, streams in due if not spool.flushing.locked()]
    if not free:
        return
    async with contextlib.AsyncExitStack() as held:
        for spool, _ in free:
            await held.enter_async_context(spool.flushing)
        await _write_all(free)


async def _write_all(due: Sequence[tuple[ShardSpool, Sequence[Stream]]]) -> None:
    """Their locks are held by the caller."""
    work = [(spool, spool.cuts(streams)) for spool, streams in due]

    def write() -> None:
        for spool, cuts in work:
            spool.write(cuts)

    writing = asyncio.ensure_future(asyncio.to_thread(write))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.wait({writing})  # the thread goes on in any case
        raise
    finally:
        for spool, cuts in work:
            spool.kept(cuts)


def _write(path: Path, content: bytes) -> None:
    draft = path.with_suffix(".draft")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()  # half of it: room for what comes next
        raise
