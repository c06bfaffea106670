"""The agent's command line with the fake Provider beside the real ones."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from shardagent import cli, providers
from tests.shardagent.fake_provider import FakeProvider, World


def open_fake(config: Mapping[str, str], plan: object) -> FakeProvider:
    return World().open("fake", config, plan)


if __name__ == "__main__":
    providers.ADAPTERS = {"fake": ("tests.shardagent.fake_agent", "open_fake")}
    sys.exit(cli.main())
