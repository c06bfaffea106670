"""What sandboxes cost, where a vendor publishes a price: dated, with the source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars a second of one sandbox's life, by what it was given.

    as_of: the day on which the source said so (YYYY-MM-DD); empty for our own.
    """

    cpu_usd: float  # of one vCPU
    gib_usd: float  # of one GiB of memory
    source: str = ""
    as_of: str = ""
    create_usd: float = 0.0  # of one sandbox made
    note: str = ""


_TABLE = "computesdk/benchmarks pricing.json"
_TABLE_DAY = "2026-03-16"
_GB = 1.073741824  # GB in a GiB

# Published list prices only; what is not here has no estimate.
PRICES: Mapping[str, Price] = {
    "local": Price(0, 0),
    "sim": Price(0, 0),
    "e2b": Price(0.000014, 0.0000045, "https://e2b.dev/pricing", "2026-11-24"),
    "daytona": Price(0.000014, 0.0000045, _TABLE, _TABLE_DAY),
    "modal": Price(
        0.00003942 / 2,
        0.00000672,
        _TABLE,
        _TABLE_DAY,
        note="sold by the physical core, which is two vCPUs; at least 0.125 cores",
    ),
    "runloop": Price(0.00003, 0.000007 * _GB, _TABLE, _TABLE_DAY),
    "blaxel": Price(0, 0.0000115 * _GB, _TABLE, _TABLE_DAY, note="CPU is included"),
    "northflank": Price(
        0.01667 / 3_600,
        0.00833 / 3_600 * _GB,
        "https://northflank.com/blog/aws-lambda-microvms-vs-northflank-pricing",
        "2026-11-24",
    ),
    "agent-sandbox": Price(
        0,
        0,
        "your own cluster: its machines are not counted",
        "2026-11-24",
    ),
    "vercel": Price(
        0.128 / 3_600,
        0.0212 / 3_600 * _GB,
        "https://vercel.com/docs/vercel-sandbox/pricing",
        "2026-11-24",
        create_usd=0.60 / 1e6,
        note="only active CPU is billed: an idle sandbox costs less than this",
    ),
}


def cost_usd(
    provider: str,
    sandbox_s: float,
    *,
    cpu: float,
    memory_mb: float,
    sandboxes: int = 0,
    prices: Mapping[str, Price] = PRICES,
) -> float | None:
    """Estimate for `sandbox_s` seconds of sandbox life; None without a price."""
    price = prices.get(provider)
    if price is None:
        return None
    rate = cpu * price.cpu_usd + memory_mb / 1024 * price.gib_usd
    return round(sandbox_s * rate + sandboxes * price.create_usd, 4)
