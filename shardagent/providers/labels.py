"""Labels in a sandbox's name, for vendors that have no labels."""

from __future__ import annotations

import re
from collections.abc import Mapping

PREFIX = "hf"
_NAME = re.compile(rf"^{PREFIX}-([a-z0-9-]+)-(\d+)-(\d+)-(\d+)$")


def name_of(labels: Mapping[str, str]) -> str:
    """hf-<run>-<shard>-<attempt>-<sandbox>: lower case, at most 63 characters."""
    parts = [labels.get(key, "0") for key in ("shard", "attempt", "sandbox")]
    return "-".join([PREFIX, labels.get("run", "run"), *parts])


def labels_of(name: str) -> dict[str, str]:
    """The labels that a name of ours carries; none where it is not one of ours."""
    found = _NAME.match(name)
    if found is None:
        return {}
    return dict(
        zip(("run", "shard", "attempt", "sandbox"), found.groups(), strict=True)
    )


def carries(name: str, labels: Mapping[str, str]) -> bool:
    """Whether the name has all these labels; an empty wish wants ours alone."""
    own = labels_of(name)
    return bool(own) and labels.items() <= own.items()
