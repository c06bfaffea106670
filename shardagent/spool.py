"""The record of each Shard on its way to object storage: buffers, segments, disk.

Lines are gathered in memory, cut into segments (zstd), written to the spool
directory and forgotten once they are stored. A restarted agent finds there what was
not yet stored, and where the numbering goes on.

    <spool>/<run>/<shard:05d>-<attempt:02d>/ events-000003.zst log-000001.zst state.json
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson
import zstandard

from shardagent.scrub import Scrubber
from shardagent.wire import Finish, Kind, Lease, SegmentReport

SEGMENT_BYTES_MAX = 1 << 20  # before compression
SPOOL_BYTES_MAX = 512 << 20  # on disk, all Shards of the process
LOG_LINE_MAX = 2_000  # characters
ZSTD_LEVEL = 1
HEADER_RESERVE = 64  # room for a log segment's first line

StreamKind = Literal["events", "log"]
_SEGMENT_NAME = re.compile(r"(events|log)-(\d{6})\.zst")


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment on disk, waiting to be stored."""

    path: Path
    report: SegmentReport


class Spool:
    """The directory, and the bound on what all Shards of a process keep in it."""

    def __init__(
        self, directory: Path, run: str, *, bytes_max: int = SPOOL_BYTES_MAX
    ) -> None:
        self.used_bytes = 0
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
        self._size = 0

    @property
    def queued(self) -> int:
        """Lines in memory."""
        return len(self._lines)

    def add(self, line: bytes, at: int) -> None:
        """Number one more line; cut first where it would make the segment too big."""
        if self._size + len(line) + HEADER_RESERVE > SEGMENT_BYTES_MAX:
            self.cut()
        if self.oldest_us is None:
            self.oldest_us = at
        self._lines.append(line)
        self._size += len(line)
        self.count += 1

    def flush_due(self, now: int, interval_us: int) -> bool:
        """Whether the oldest line has waited long enough."""
        return self.oldest_us is not None and now - self.oldest_us >= interval_us

    def cut(self) -> bool:
        """Make a segment of what is in memory; False where there is nothing."""
        if not self._lines:
            return False
        lines, self._lines = self._lines, []
        self._size = 0
        self.oldest_us = None
        body = b"".join(lines)
        if self.kind == "log":
            body = b"#first_line %d\n" % (self.count - len(lines)) + body
        stored = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(body)
        if self._spool.used_bytes + len(stored) > self._spool.bytes_max:
            # The gap in n is what tells readers that facts are missing.
            self.dropped += len(lines)
            return False
        report = SegmentReport(
            kind=self.kind,
            seq=self.next_seq,
            sha256=hashlib.sha256(stored).hexdigest(),
            bytes=len(stored),
            events=len(lines),
        )
        _write(self._path(self.next_seq), stored)
        self.next_seq += 1
        self._keep(report)
        return True

    def stored(self, segment: Segment) -> None:
        """The oldest waiting segment is in object storage."""
        assert self.waiting[0] is segment
        self.waiting.popleft()
        self._spool.used_bytes -= segment.report.bytes
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
            if self._path(report.seq).exists():
                self._keep(report)
            else:
                self.unacknowledged.append(report)
        # A segment written in the instant before the state was.
        while self._path(self.next_seq).exists():
            stored = self._path(self.next_seq).read_bytes()
            body = zstandard.ZstdDecompressor().decompress(stored)
            lines = body.count(b"\n") - (self.kind == "log")
            report = SegmentReport(
                kind=self.kind,
                seq=self.next_seq,
                sha256=hashlib.sha256(stored).hexdigest(),
                bytes=len(stored),
                events=lines,
            )
            self.next_seq += 1
            self.count += lines
            self._keep(report)

    def _keep(self, report: SegmentReport) -> None:
        self._spool.used_bytes += report.bytes
        self.waiting.append(Segment(self._path(report.seq), report))

    def _path(self, seq: int) -> Path:
        return self._folder / f"{self.kind}-{seq:06d}.zst"


class ShardSpool:
    """The record of one attempt; what shard.py writes its facts to."""

    def __init__(
        self, spool: Spool, lease: Lease, folder: Path, scrubber: Scrubber
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.lease = lease
        self.events = Stream(spool, "events", folder)
        self.lines = Stream(spool, "log", folder)
        self.streams = (self.events, self.lines)
        self.released = False  # a create may have been sent
        self.resumed = False  # an earlier process wrote here
        self.finish: Finish | None = None  # agent_finished is written: nothing follows
        self._scrubber = scrubber
        self._folder = folder
        self._state = folder / "state.json"
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
        if self.sealed:
            return
        message = fields.get("message")
        if isinstance(message, str) and message:
            fields["message"] = self._scrubber.clean(message)
        event: dict[str, object] = {
            "v": 1,
            "n": self.events.count,
            "at": at,
            "kind": kind,
        }
        if sandbox is not None:
            event["sandbox"] = sandbox
        event.update(fields)
        self.events.add(orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE), at)
        if kind is Kind.RELEASED:
            self.released = True
            self._save()
        if kind is Kind.AGENT_FINISHED:
            self.finish = Finish(str(fields["reason"]))

    def log(self, at: int, level: str, text: str) -> None:
        """Write one log line."""
        if self.sealed:
            return
        text = " ".join(self._scrubber.clean(text).split())[:LOG_LINE_MAX]
        self.lines.add(f"{at} {level} {text}\n".encode(errors="replace"), at)

    def end(self, at: int) -> None:
        """Finish a record that its Shard did not finish."""
        if not self.sealed:
            self.event(Kind.AGENT_FINISHED, at, reason=Finish.ERROR)

    def forget(self) -> None:
        """Everything is stored and the site knows: leave nothing on disk."""
        self._state.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def cut(self, *streams: Stream) -> None:
        """Make segments of what is in memory."""
        for stream in streams or self.streams:
            stream.cut()
        self._save()

    def _save(self) -> None:
        state: dict[str, object] = {"released": self.released, "finish": self.finish}
        for stream in self.streams:
            state[stream.kind] = {
                "seq": stream.next_seq,
                "count": stream.count - stream.queued,
                "segments": [report.model_dump() for report in stream.reports()],
            }
        _write(self._state, orjson.dumps(state))

    def _restore(self) -> None:
        if not self._state.exists():
            return
        self.resumed = True
        state = orjson.loads(self._state.read_bytes())
        self.released = state["released"]
        self.finish = Finish(state["finish"]) if state["finish"] else None
        for stream in self.streams:
            kept = state[stream.kind]
            reports = [SegmentReport(**report) for report in kept["segments"]]
            stream.restore(kept["seq"], kept["count"], reports)


def _write(path: Path, content: bytes) -> None:
    draft = path.with_suffix(".draft")
    draft.write_bytes(content)
    draft.replace(path)
