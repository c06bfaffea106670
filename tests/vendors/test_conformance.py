"""One suite for all: our thin adapters and the vendors' real SDKs, at the stand-ins.

What the SDK does not accept of a stand-in, a stand-in may not answer; what the stand-in
does not accept of the SDK, our adapter may not send.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from shardagent import providers, zstd
from shardagent.conformance import Conformance
from shardagent.errors import Cause, ProviderError
from shardagent.providers.base import Wanted
from tests.vendors.standin import plan_of, standin

THIN = [
    *("agent-sandbox", "blaxel", "daytona", "e2b", "northflank", "novita", "runloop"),
    *("tensorlake", "vercel"),
]
ALWAYS = ("blaxel", "daytona", "e2b")
NEEDS_PACKAGES = [
    ("daytona", "sdk"),
    ("modal", "sdk"),
    ("runloop", "sdk"),
    ("tensorlake", "sdk"),
    ("vercel", "sdk"),
]


def truth_lines(folder: Path) -> list[bytes]:
    """What a world wrote down, once it has ended."""
    packed = [path.read_bytes() for path in folder.glob("truth-*.zst")]
    return b"".join(zstd.decompress(one) for one in packed).splitlines()


async def failures(vendor: str, transport: str, folder: Path) -> list[str]:
    """Of one adapter; also sees that every check was made."""
    with standin(vendor, folder) as config:
        suite = Conformance(plan_of(vendor, transport), config)
        found = [checked async for checked in suite.checks()]
    assert len(found) >= 13
    return [f"{one.name}: {one.detail}" for one in found if not one.ok]


@pytest.mark.parametrize(
    "vendor",
    # Three of unlike shapes in every run of the tests, the others with their SDKs.
    [
        vendor if vendor in ALWAYS else pytest.param(vendor, marks=pytest.mark.vendors)
        for vendor in THIN
    ],
)
async def test_the_thin_adapter_does_what_each_must(
    vendor: str, tmp_path: Path
) -> None:
    assert await failures(vendor, "thin", tmp_path) == []


async def test_the_real_e2b_sdk_accepts_the_stand_in(tmp_path: Path) -> None:
    assert await failures("e2b", "sdk", tmp_path) == []


@pytest.mark.vendors
@pytest.mark.filterwarnings("default")  # of the vendors' own code
@pytest.mark.parametrize(("vendor", "transport"), NEEDS_PACKAGES)
async def test_the_real_sdk_accepts_the_stand_in(
    vendor: str, transport: str, tmp_path: Path
) -> None:
    assert await failures(vendor, transport, tmp_path) == []


def test_each_vendor_with_a_stand_in_is_tested_thin_and_by_its_sdk() -> None:
    for slug in providers.known():
        if importlib.util.find_spec("modal") is None and slug == "modal":
            continue
        about = providers.about(slug)
        if about.stand_in and about.sdk:
            assert (slug in THIN) is about.thin
            assert slug == "e2b" or (slug, "sdk") in NEEDS_PACKAGES


async def test_an_sdk_sends_a_refused_create_once(tmp_path: Path) -> None:
    with standin("e2b", tmp_path, quota=0) as config:
        provider = providers.open_provider("e2b", config, plan_of("e2b", "sdk"))
        wanted = Wanted(0, {"run": "alpha-1", "sandbox": "0"}, 60)
        with pytest.raises(ProviderError) as refused:
            await provider.create(wanted, lambda: None)
        assert refused.value.cause is Cause.QUOTA
        assert refused.value.status == 429
        await provider.close()
    assert len(truth_lines(tmp_path)) == 1  # every create that the world was asked for
