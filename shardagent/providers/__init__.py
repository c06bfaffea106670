"""Adapters by slug. Each is imported only when its Provider is asked for.

Our own are listed here, so that an agent in a checkout needs no installation; other
packages add theirs as entry points of `holdfast.providers` (docs/providers.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, cast

from shardagent.errors import ConfigError
from shardagent.providers.base import About, Provider
from shardagent.wire import Plan

GROUP = "holdfast.providers"
OWN: Mapping[str, str] = {
    "agent-sandbox": "shardagent.providers.agent_sandbox:AgentSandboxProvider",
    "blaxel": "shardagent.providers.blaxel:BlaxelProvider",
    "daytona": "shardagent.providers.daytona:DaytonaProvider",
    "e2b": "shardagent.providers.e2b:E2bProvider",
    "local": "shardagent.providers.local:LocalProvider",
    "modal": "shardagent.providers.modal:ModalProvider",
    "northflank": "shardagent.providers.northflank:NorthflankProvider",
    "novita": "shardagent.providers.novita:NovitaProvider",
    "runloop": "shardagent.providers.runloop:RunloopProvider",
    "sim": "shardagent.providers.sim:SimProvider",
    "tensorlake": "shardagent.providers.tensorlake:TensorlakeProvider",
    "vercel": "shardagent.providers.vercel:VercelProvider",
}


@lru_cache(maxsize=1)
def known() -> Mapping[str, str]:
    """Slug → "module:Class" of every adapter here; ours are never replaced."""
    found = {point.name: point.value for point in entry_points(group=GROUP)}
    return dict(sorted({**found, **OWN}.items()))


def adapter(slug: str, transport: str | None = None) -> type[Provider]:
    """The adapter's class; the first that there is where no transport is named.

    ConfigError where there is none or it cannot be loaded.
    """
    try:
        reference = known()[slug]
    except KeyError:
        text = f"no provider {slug!r}; known are {', '.join(known())}"
        raise ConfigError(text) from None
    found = _load(slug, reference)
    if transport is not None and transport not in found.about.transports:
        raise ConfigError(f"provider {slug!r} has no transport {transport!r}")
    return _load(slug, found.about.sdk) if transport == "sdk" else found


def about(slug: str) -> About:
    """What is known of a Provider without an account there."""
    return adapter(slug).about


def secrets_of(slug: str, config: Mapping[str, str]) -> list[str]:
    """Values of a configuration that must not be seen; all, of an unknown Provider."""
    if slug not in known():
        return [*config.values()]
    return about(slug).secrets(config)


def open_provider(slug: str, config: Mapping[str, str], plan: Plan) -> Provider:
    """One instance of the adapter, for one Shard."""
    found: Any = adapter(slug, plan.transport)
    return cast(Provider, found(config, plan))


def _load(slug: str, reference: str) -> type[Provider]:
    module, _, name = reference.partition(":")
    try:
        return cast(type[Provider], getattr(import_module(module), name))
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"provider {slug!r} cannot be loaded: {error}") from error
