"""The agent's command line with the fake Provider beside the real ones."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from shardagent import cli, providers
from tests.shardagent.fake_provider import FakeProvider, World


class FakeAdapter(FakeProvider):
    def __init__(self, config: Mapping[str, str], plan: object) -> None:
        super().__init__(World())


if __name__ == "__main__":
    providers.OWN = {"fake": "tests.shardagent.fake_agent:FakeAdapter"}
    sys.exit(cli.main())
