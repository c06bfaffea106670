"""Adapters by slug. Each is imported only when its Provider is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import cast

from shardagent.errors import ConfigError
from shardagent.providers.base import Provider
from shardagent.wire import Plan

ADAPTERS: Mapping[str, tuple[str, str]] = {
    "local": ("shardagent.providers.local", "LocalProvider"),
    "sim": ("shardagent.providers.sim", "SimProvider"),
}


def open_provider(slug: str, config: Mapping[str, str], plan: Plan) -> Provider:
    """One instance of the adapter, for one Shard."""
    try:
        module, name = ADAPTERS[slug]
    except KeyError:
        known = ", ".join(sorted(ADAPTERS))
        raise ConfigError(f"no provider {slug!r}; known are {known}") from None
    try:
        adapter = getattr(import_module(module), name)
    except ImportError as error:
        raise ConfigError(f"provider {slug!r} cannot be loaded: {error}") from error
    return cast(Provider, adapter(config, plan))
