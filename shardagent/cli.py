"""The command line: `shardagent --site URL --run CODE [--host N] --spool DIR`.

`shardagent conformance PROVIDER` runs an adapter through conformance.py instead.

The environment holds HOLDFAST_AGENT_TOKEN: a host's, or without --host the Run's, by
which the agent claims whichever host is free (claim.py). What it knows of its machine
is in the environment too (machine.py). Three more variables are for tests alone:
HOLDFAST_TEST_CLOCK_OFFSET_US and HOLDFAST_TEST_CLOCK_DRIFT_PPM make the clock wrong
(one number, or a comma-separated list by host index: clock.py), HOLDFAST_TEST_FAULT
makes the rig misbehave (its names and meanings: faults.py).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from shardagent import __version__
from shardagent.agent import Agent, Options
from shardagent.check import main as conforms
from shardagent.claim import claim
from shardagent.errors import FencedError, ShardAgentError
from shardagent.machine import machine, wanted_index

TOKEN = "HOLDFAST_AGENT_TOKEN"
NICE = -10
SWITCH_S = 0.0005  # that the loop waits for the thread that writes segments, at most
AUTOGROUP = Path("/proc/self/autogroup")
STATUS_CONFIG = 2  # started with something it cannot use, or refused at the door


def main(argv: Sequence[str] | None = None) -> int:
    """Run one agent process; its exit status."""
    words = [*(sys.argv[1:] if argv is None else argv)]
    if words[:1] == ["conformance"]:
        return conforms(words[1:])
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    arguments = _parser().parse_args(words)
    token = os.environ.pop(TOKEN, "")  # not for the children of a Provider adapter
    if not token:
        print(f"shardagent: {TOKEN} is not set", file=sys.stderr)
        return STATUS_CONFIG
    settle_in()
    try:
        return asyncio.run(_run(arguments, token))
    except FencedError as error:
        print(f"shardagent: not needed: {error}", file=sys.stderr)
        return 0
    except ShardAgentError as error:
        print(f"shardagent: {error}", file=sys.stderr)
        return STATUS_CONFIG


async def _run(arguments: argparse.Namespace, token: str) -> int:
    carrier, host = machine(), arguments.host
    if host is None:
        given = await claim(
            arguments.site,
            token,
            run=arguments.run,
            machine=carrier.id,
            index=wanted_index(),
        )
        host, token = given.host, given.token
    options = Options(
        site=arguments.site,
        run=arguments.run,
        host=host,
        spool=arguments.spool,
        token=token,
        machine=carrier,
    )
    agent = Agent(options)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.stop)
    return await agent.run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="shardagent",
        description="Drives one host's share of a Run. "
        f"The token is read from the environment variable {TOKEN}.",
    )
    parser.add_argument("--site", required=True, help="the site's address")
    parser.add_argument("--run", required=True, help="the Run's code")
    parser.add_argument(
        "--host", type=int, help="0-based host number; without it one is claimed"
    )
    parser.add_argument(
        "--spool", required=True, type=Path, help="directory for what is not stored yet"
    )
    parser.add_argument("--version", action="version", version=__version__)
    return parser


def settle_in() -> None:
    """What this process asks of its machine before it measures."""
    _raise_fd_limit()
    _go_first()
    _collect_seldom()
    sys.setswitchinterval(SWITCH_S)


def _collect_seldom() -> None:
    """A pause of the collector is a pause of every measurement of this process."""
    gc.freeze()  # what was imported stays
    gc.set_threshold(50_000, 20, 100)


def _go_first() -> None:
    """Before whatever else runs on the machine, where we may: we are the clock.

    Where Linux shares its cores by session (sched(7), autogroup), the session counts.
    """
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    if os.getsid(0) == os.getpid():  # it is ours alone
        with contextlib.suppress(OSError):
            AUTOGROUP.write_text(str(NICE))


def _raise_fd_limit() -> None:
    """One connection a Sandbox: the usual soft limit of 1,024 is soon reached."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
