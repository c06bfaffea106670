"""Real sandboxes of this machine: they need Linux namespaces and bubblewrap."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import pytest

from shardagent.errors import Cause, ConfigError, Origin, ProviderError
from shardagent.providers import local_processes as processes
from shardagent.providers.base import Wanted
from shardagent.providers.local import (
    READY_COMMAND,
    Isolation,
    Level,
    LocalProvider,
    detect_isolation,
)
from shardagent.wire import Plan, Spec

pytestmark = [
    pytest.mark.sandboxes,
    pytest.mark.skipif(
        detect_isolation().level is not Level.BUBBLEWRAP, reason="no bubblewrap here"
    ),
]

NAMESPACES = ("user", "pid", "mnt", "net", "uts", "ipc")
RUN = f"test-{os.getpid()}"
PLAN = Plan(provider="local", code=RUN, sandbox_count=1_000)


def nothing() -> None:
    """Nobody measures the sending."""


def wanted(index: int, *, ttl_s: int = 60) -> Wanted:
    labels = {"run": RUN, "shard": "0", "attempt": "0", "sandbox": str(index)}
    return Wanted(index, labels, ttl_s)


def tree(provider_id: str) -> list[int]:
    """The outer process of a sandbox and everything below it."""
    found = [int(provider_id.split("-")[-2])]
    for pid in found:
        children = Path(f"/proc/{pid}/task/{pid}/children")
        if children.exists():
            found += [int(child) for child in children.read_text().split()]
    return found


def gone(pids: list[int]) -> bool:
    return all(processes.started(pid) is None for pid in pids)


@pytest.fixture
async def provider() -> AsyncIterator[LocalProvider]:
    provider = LocalProvider({}, PLAN)
    yield provider
    await provider.close()
    assert await provider.list({"run": RUN}) == []


async def output(provider: LocalProvider, provider_id: str, *command: str) -> str:
    answer = await provider.execute(provider_id, command, nothing, 10)
    assert answer.exit_code == 0, answer.output
    return answer.output.strip()


async def probe_failure(provider: LocalProvider, provider_id: str) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await provider.probe(provider_id, ["true"], None, nothing, 5)
    return caught.value


async def test_twenty_sandboxes_live_together_and_leave_nothing(
    provider: LocalProvider,
) -> None:
    created = await asyncio.gather(
        *(provider.create(wanted(index), nothing) for index in range(20))
    )
    ids = [each.provider_id for each in created]
    answers = await asyncio.gather(
        *(provider.execute(each, READY_COMMAND, nothing, 10) for each in ids)
    )
    assert {answer.output for answer in answers} == {"ready\n"}
    listed = await provider.list({"run": RUN, "shard": "0"})
    assert {found.provider_id for found in listed} == set(ids)
    pids = [pid for each in ids for pid in tree(each)]
    assert len(pids) >= 40  # the outer process and the one inside
    await asyncio.gather(*(provider.destroy(each, nothing) for each in ids[:10]))
    assert gone([pid for each in ids[:10] for pid in tree(each)])
    await provider.close()
    assert gone(pids)


async def test_the_kernel_really_isolates(provider: LocalProvider) -> None:
    provider_id = (await provider.create(wanted(0), nothing)).provider_id
    for name in NAMESPACES:
        path = f"/proc/self/ns/{name}"
        inside = await output(provider, provider_id, "readlink", path)
        assert inside != os.readlink(path), name
    seen = await output(provider, provider_id, "sh", "-c", "echo /proc/[0-9]*")
    assert len(seen.split()) <= 3  # init, the shell, nothing of the host
    devices = await output(provider, provider_id, "cat", "/proc/net/dev")
    names = [line.split(":")[0].strip() for line in devices.splitlines()[2:]]
    assert names == ["lo"]
    assert await output(provider, provider_id, "uname", "-n") == "sandbox"
    assert await output(provider, provider_id, "id", "-u") == "1000"
    environment = await output(provider, provider_id, "env")
    assert "PYTEST" not in environment


async def test_the_host_cannot_be_written_to(provider: LocalProvider) -> None:
    provider_id = (await provider.create(wanted(0), nothing)).provider_id
    for path in ("/usr/x", "/holdfast/x", "/lib/x"):
        answer = await provider.execute(provider_id, ["touch", path], nothing, 5)
        assert "Read-only file system" in answer.output, path
    answer = await provider.execute(provider_id, ["ls", str(Path.cwd())], nothing, 5)
    assert answer.exit_code != 0
    await output(provider, provider_id, "touch", "/tmp/mine")
    other = (await provider.create(wanted(1), nothing)).provider_id
    assert await output(provider, other, "ls", "/tmp") == ""


async def test_limits_are_set(provider: LocalProvider) -> None:
    provider_id = (await provider.create(wanted(0), nothing)).provider_id
    limits = await output(provider, provider_id, "cat", "/proc/self/limits")
    data = next(line for line in limits.splitlines() if "Max data size" in line)
    assert data.split()[3] == str(512 * 1_048_576)
    greedy = f"{sys.base_prefix}/bin/python3"
    script = "x = bytearray(600 * 1024 * 1024)"
    answer = await provider.execute(provider_id, [greedy, "-c", script], nothing, 10)
    assert "MemoryError" in answer.output


async def test_arguments_stay_arguments(provider: LocalProvider) -> None:
    provider_id = (await provider.create(wanted(0), nothing)).provider_id
    nasty = "$(touch /tmp/x); `id` '\"\n* \\"
    answer = await provider.execute(provider_id, ["printf", "%s", nasty], nothing, 5)
    assert answer.output == nasty
    with pytest.raises(ProviderError) as caught:
        await provider.execute(provider_id, ["echo", "a\0b"], nothing, 5)
    assert caught.value.cause is Cause.INVALID_REQUEST


async def test_exit_codes_outputs_and_deadlines(provider: LocalProvider) -> None:
    provider_id = (await provider.create(wanted(0), nothing)).provider_id

    async def code(*command: str) -> int:
        answer = await provider.execute(provider_id, command, nothing, 5)
        return answer.exit_code

    assert await code("sh", "-c", "exit 3") == 3
    assert await code("sh", "-c", "kill -9 $$") == 137
    assert await code("no-such-command") == 127
    assert await code("/tmp") == 126
    command = ["sh", "-c", "yes | head -c 200000"]
    answer = await provider.execute(provider_id, command, nothing, 5)
    assert len(answer.output) == 64 * 1024
    with pytest.raises(ProviderError) as caught:
        await provider.execute(provider_id, ["sleep", "9"], nothing, 0.2)
    assert caught.value.cause is Cause.TIMEOUT
    given_up = asyncio.create_task(
        provider.execute(provider_id, ["sleep", "77"], nothing, 60)
    )
    await asyncio.sleep(0.1)
    given_up.cancel()
    await asyncio.wait([given_up])
    await asyncio.sleep(0.1)
    seen = await output(provider, provider_id, "sh", "-c", "cat /proc/[0-9]*/comm")
    assert "sleep" not in seen


async def test_the_witness_misses_the_ticks_of_a_stopped_sandbox(
    provider: LocalProvider,
) -> None:
    provider_id = (await provider.create(wanted(0), nothing)).provider_id
    await provider.start_witness(provider_id, "nonce", nothing)
    await asyncio.sleep(1.1)
    before = await provider.probe(provider_id, ["true"], "one", nothing, 5)
    assert before.digest == sha256(b"nonceone").hexdigest()
    assert before.ticks is not None
    assert 3 <= before.ticks <= 5
    for pid in tree(provider_id):
        os.kill(pid, signal.SIGSTOP)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await provider.probe(provider_id, ["true"], "lost", nothing, 1)
    for pid in tree(provider_id):
        os.kill(pid, signal.SIGCONT)
    after = await provider.probe(provider_id, ["true"], "two", nothing, 5)
    assert after.digest == sha256(b"noncetwo").hexdigest()
    assert after.ticks is not None
    assert after.ticks - before.ticks <= 2  # of four


async def test_a_stopped_sandbox_can_be_destroyed(provider: LocalProvider) -> None:
    provider_id = (await provider.create(wanted(0), nothing)).provider_id
    pids = tree(provider_id)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    await provider.destroy(provider_id, nothing)
    assert gone(pids)


@pytest.mark.parametrize("which", [0, 1], ids=["outer process", "inner process"])
async def test_a_sandbox_killed_from_outside_is_not_found(
    provider: LocalProvider, which: int
) -> None:
    provider_id = (await provider.create(wanted(0), nothing)).provider_id
    pids = tree(provider_id)
    os.kill(pids[which], signal.SIGKILL)
    error = await probe_failure(provider, provider_id)
    assert (error.cause, error.origin) == (Cause.NOT_FOUND, Origin.PROVIDER)
    await provider.destroy(provider_id, nothing)
    assert gone(pids)


async def test_a_death_during_a_probe_is_not_found(provider: LocalProvider) -> None:
    provider_id = (await provider.create(wanted(0), nothing)).provider_id
    probe = asyncio.create_task(
        provider.probe(provider_id, ["sleep", "9"], None, nothing, 10)
    )
    await asyncio.sleep(0.1)
    os.kill(tree(provider_id)[1], signal.SIGKILL)
    with pytest.raises(ProviderError) as caught:
        await probe
    assert caught.value.cause is Cause.NOT_FOUND


async def test_its_time_to_live_ends_a_sandbox(provider: LocalProvider) -> None:
    provider_id = (await provider.create(wanted(0, ttl_s=1), nothing)).provider_id
    pids = tree(provider_id)
    await asyncio.sleep(1.3)
    assert (await probe_failure(provider, provider_id)).cause is Cause.NOT_FOUND
    assert gone(pids)


async def test_another_agent_may_list_and_destroy(provider: LocalProvider) -> None:
    provider_id = (await provider.create(wanted(0), nothing)).provider_id
    pids = tree(provider_id)
    reaper = LocalProvider({}, PLAN)
    assert [found.provider_id for found in await reaper.list({"run": RUN})] == [
        provider_id
    ]
    head, pid, began = provider_id.rsplit("-", 2)
    await reaper.destroy(f"{head}-{pid}-{int(began) + 1}", nothing)  # a reused pid
    assert not gone(pids)
    await reaper.destroy(provider_id, nothing)
    assert gone(pids)


async def test_sandboxes_die_with_their_agent(provider: LocalProvider) -> None:
    script = (
        "import asyncio; from tests.shardagent.providers.test_local import *\n"
        "async def main():\n"
        "    provider = LocalProvider({}, PLAN.model_copy(update={'code': 'x'}))\n"
        f"    labels = {{'run': '{RUN}-agent'}}\n"
        "    for index in range(3):\n"
        "        await provider.create(Wanted(index, labels, 60), nothing)\n"
        "    print('up', flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    agent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script), stdout=subprocess.PIPE
    )
    assert agent.stdout is not None
    assert await agent.stdout.readline() == b"up\n"
    listed = await provider.list({"run": f"{RUN}-agent"})
    assert len(listed) == 3
    agent.kill()
    await agent.wait()
    deadline = time.monotonic() + 3
    while await provider.list({"run": f"{RUN}-agent"}):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_a_create_given_up_leaves_nothing(provider: LocalProvider) -> None:
    creates = [
        asyncio.create_task(provider.create(wanted(index), nothing))
        for index in range(10)
    ]
    await asyncio.sleep(0.02)
    for create in creates:
        create.cancel()
    await asyncio.wait(creates)
    await provider.close()
    assert await provider.list({"run": RUN}) == []


async def test_starting_many_does_not_block_the_loop(provider: LocalProvider) -> None:
    lags: list[float] = []

    async def watch() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            lags.append(time.monotonic() - before - 0.005)

    watching = asyncio.create_task(watch())
    await asyncio.gather(
        *(provider.create(wanted(index), nothing) for index in range(30))
    )
    watching.cancel()
    lags.sort()
    assert lags[len(lags) // 2] < 0.05


@pytest.mark.parametrize("level", [Level.UNSHARE, Level.PROCESS_GROUP])
async def test_weaker_levels_work_and_leave_nothing(level: Level) -> None:
    provider = LocalProvider({"isolation": level}, PLAN)
    provider_id = (await provider.create(wanted(0), nothing)).provider_id
    await provider.start_witness(provider_id, "nonce", nothing)
    answer = await provider.probe(provider_id, READY_COMMAND, "c", nothing, 5)
    assert answer.output == "ready\n"
    assert answer.digest == sha256(b"noncec").hexdigest()
    inside = await output(provider, provider_id, "readlink", "/proc/self/ns/pid")
    own = inside != os.readlink("/proc/self/ns/pid")
    assert own == (level is Level.UNSHARE)
    # A process that leaves its group is found as well.
    await output(provider, provider_id, "sh", "-c", "setsid sleep 50 >/dev/null 2>&1 &")
    pids = tree(provider_id)
    os.kill(pids[-1 if own else 0], signal.SIGCONT)
    await provider.destroy(provider_id, nothing)
    assert gone(pids)
    await provider.close()
    assert await provider.list({"run": RUN}) == []


def test_what_is_missing_is_said() -> None:
    found = detect_isolation()
    assert found.name.startswith("bubblewrap: user+pid+mount+net")
    assert found.missing == ()
    weak = Isolation(Level.PROCESS_GROUP, "x")
    assert not weak.own_pids
    with pytest.raises(ConfigError, match="unknown isolation"):
        LocalProvider({"isolation": "prayer"}, PLAN)


def test_without_tools_the_weakest_level_is_named_and_warned_of() -> None:
    script = (
        "from shardagent.providers.local import detect_isolation as detect\n"
        "found = detect(); print(found.level, found.missing, found.warning)"
    )
    said = subprocess.run(
        [sys.executable, "-c", script],
        env={"PATH": "/nowhere"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.startswith("process_group ('bubblewrap: bwrap is not installed', ")
    assert "unshare is not installed" in said
    assert "see the host's files" in said


async def test_the_smallest_sandbox_starts() -> None:
    small = PLAN.model_copy(update={"spec": Spec.model_validate({"memory_mb": 16})})
    provider = LocalProvider({}, small)
    provider_id = (await provider.create(wanted(0), nothing)).provider_id
    await provider.start_witness(provider_id, "nonce", nothing)
    assert await output(provider, provider_id, *READY_COMMAND) == "ready"
    await provider.close()
