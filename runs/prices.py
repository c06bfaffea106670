"""What sandboxes cost, where a vendor publishes a price per second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars a second of one sandbox's life, by what it was given."""

    cpu_usd: float  # of one vCPU
    gib_usd: float  # of one GiB of memory


# Published list prices only; what is not here has no estimate.
PRICES: Mapping[str, Price] = {
    "local": Price(0, 0),
    "sim": Price(0, 0),
    "e2b": Price(cpu_usd=0.000014, gib_usd=0.0000045),
}


def cost_usd(
    provider: str,
    sandbox_s: float,
    *,
    cpu: float,
    memory_mb: float,
    prices: Mapping[str, Price] = PRICES,
) -> float | None:
    """Estimate for `sandbox_s` seconds of sandbox life; None without a price."""
    price = prices.get(provider)
    if price is None:
        return None
    rate = cpu * price.cpu_usd + memory_mb / 1024 * price.gib_usd
    return round(sandbox_s * rate, 4)
