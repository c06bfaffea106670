"""Novita's sandboxes: E2B's wire at another address, each sandbox with its own host.

Wire as its SDK novita-sandbox 2.1.1 was seen to speak it.
"""

from __future__ import annotations

from collections.abc import Mapping

from shardagent.providers.base import ENDPOINT, About, Entry
from shardagent.providers.e2b import ENVD_PORT, E2bProvider
from shardagent.wire import Plan

DOMAIN = "us-phx-1.sandbox.novita.ai"


class NovitaProvider(E2bProvider):
    """config: `api_key`."""

    slug = "novita"
    about = About(
        title="Novita",
        endpoint=f"https://api.{DOMAIN}",
        entries=(Entry("api_key", "API key"),),
        maps=frozenset({"image"}),
        waits_for="the microVM to be resumed and its daemon to answer",
        stand_in=True,
    )
    create_path = "/sandboxes"

    def __init__(self, config: Mapping[str, str], plan: Plan) -> None:
        super().__init__(config, plan)
        self._elsewhere = config.get(ENDPOINT, "").rstrip("/")

    def bases(self) -> list[str]:
        """Each sandbox has a host of its own, known only once it is there."""
        return [self.http.base]

    def edge(self, provider_id: str) -> str:
        return self._elsewhere or f"https://{ENVD_PORT}-{provider_id}.{DOMAIN}"
