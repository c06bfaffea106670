"""What machine a sandbox says it is: its CPUs and its memory, asked once a Shard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from shardagent.calls import Call, Result
from shardagent.errors import Cause, Origin, ProviderError
from shardagent.providers.base import Answer
from shardagent.record import TalliedRecord
from shardagent.wire import Kind

# Five lines: processors, cgroup CPU quota, MemTotal, cgroup memory limit (v2, then v1).
# A line is empty where the sandbox does not have it.
COMMAND = (
    "sh",
    "-c",
    "nproc 2>/dev/null || echo; "
    "cat /sys/fs/cgroup/cpu.max 2>/dev/null || echo; "
    "sed -n 's/^MemTotal: *//p' /proc/meminfo 2>/dev/null || echo; "
    "cat /sys/fs/cgroup/memory.max 2>/dev/null || echo; "
    "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || echo",
)
LINES = 5
CPUS_MAX = 4_096
MEMORY_BYTES_MAX = 1 << 50  # a cgroup without a limit gives a number near 2^63


@dataclass(frozen=True, slots=True)
class Observed:
    """Processors it may use (a cgroup's quota counts) and bytes of memory."""

    cpus: float
    memory_bytes: int


def read(output: str) -> Observed:
    """What COMMAND printed; ProviderError where that is no answer."""
    lines = [line.strip() for line in output.split("\n")]
    lines += [""] * (LINES - len(lines))
    processors, quota, total, *limits = lines[:LINES]
    memory = [_kilobytes(total), *(_whole(limit) for limit in limits)]
    known = [size for size in memory if size is not None and size < MEMORY_BYTES_MAX]
    cpus = [cpu for cpu in (_whole(processors), _quota(quota)) if cpu]
    if not cpus or not known or min(cpus) > CPUS_MAX or min(known) < 1:
        raise ProviderError(
            Cause.COMMAND_FAILED,
            Origin.PROVIDER,
            f"no CPU count or no memory in: {output[:200]!r}",
        )
    return Observed(float(min(cpus)), int(min(known)))


def fields(result: Result) -> dict[str, object]:
    """Of the event `observed`; ProviderError where the sandbox did not say."""
    if result.error is not None:
        raise result.error
    seen = read(cast(Answer, result.value).output)
    return {"cpus": seen.cpus, "memory_bytes": seen.memory_bytes}


def _whole(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 20 else None


def _kilobytes(text: str) -> int | None:
    """MemTotal, as `16316412 kB`."""
    kilobytes = _whole(text.removesuffix("kB").strip())
    return None if kilobytes is None else kilobytes * 1_024


def _quota(text: str) -> float | None:
    """cpu.max, as `50000 100000` (µs a period) or `max 100000`."""
    quota, _, period = text.partition(" ")
    used, of = _whole(quota), _whole(period)
    return used / of if used and of else None


def tell(record: TalliedRecord, call: Call, result: Result) -> None:
    """Write down what it said, or that it said nothing of use."""
    try:
        facts = fields(result)
    except ProviderError as failure:
        text = f"a sandbox does not say its size: {failure}"
        record.log(result.done_us, "WARNING", text)
        return
    record.event(Kind.OBSERVED, result.done_us, call.sandbox, **facts)
