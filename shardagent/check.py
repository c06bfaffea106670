"""`shardagent conformance PROVIDER`: an adapter through the whole suite, in words.

Each value of the account is read from HOLDFAST_<NAME>, as HOLDFAST_API_KEY.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from shardagent import providers
from shardagent.conformance import TOGETHER, Conformance
from shardagent.errors import ConfigError
from shardagent.providers.base import ENDPOINT, About
from shardagent.scrub import Scrubber
from shardagent.wire import Plan

STATUS_FAILED = 1
STATUS_CONFIG = 2


def main(argv: Sequence[str]) -> int:
    """0 where every check passed, 1 where one failed, 2 where it cannot begin."""
    parser = argparse.ArgumentParser(
        prog="shardagent conformance",
        description="Makes some small sandboxes at a Provider and destroys them again. "
        "Each value of the account is read from HOLDFAST_<NAME>.",
    )
    parser.add_argument("provider", help=", ".join(providers.known()))
    parser.add_argument("--endpoint", default="", help="another than the vendor's own")
    parser.add_argument("--transport", choices=("thin", "sdk"))
    parser.add_argument("--spec", default="{}", help="a Plan's spec, JSON")
    parser.add_argument(
        "--together", type=int, default=TOGETHER, help="creates at once"
    )
    arguments = parser.parse_args(argv)
    try:
        about = providers.about(arguments.provider)
        config = account(about, os.environ)
        if arguments.endpoint:
            config[ENDPOINT] = arguments.endpoint
        asked = {"provider": arguments.provider, "sandbox_count": 1, **about.plan}
        if arguments.transport:
            asked["transport"] = arguments.transport
        spec = {**dict(about.plan.get("spec", {})), **json.loads(arguments.spec)}
        plan = Plan.model_validate({**asked, "spec": spec})
        suite = Conformance(plan, config, together=arguments.together)
    except (ConfigError, ValidationError, ValueError) as error:
        print(f"shardagent: {error}", file=sys.stderr)
        return STATUS_CONFIG
    return asyncio.run(_tell(suite, Scrubber(about.secrets(config))))


def account(about: About, environ: Mapping[str, str]) -> dict[str, str]:
    """The adapter's configuration out of HOLDFAST_<NAME>."""
    found = {
        e.name: environ.get(f"HOLDFAST_{e.name.upper()}", "") for e in about.entries
    }
    return {name: value for name, value in found.items() if value}


async def _tell(suite: Conformance, scrubber: Scrubber) -> int:
    failed = 0
    async for checked in suite.checks():
        failed += not checked.ok
        word = "ok  " if checked.ok else "FAIL"
        detail = scrubber.clean(checked.detail)
        print(f"{word} {checked.ms:8,.0f} ms  {checked.name}: {detail}", flush=True)
    print("all checks passed" if not failed else f"{failed} checks failed")
    return STATUS_FAILED if failed else 0
