from __future__ import annotations

import pytest

from runs.prices import Price, cost_usd


@pytest.mark.parametrize(
    ("provider", "seconds", "expected"),
    [
        ("sim", 1_000_000, 0.0),
        ("local", 1_000_000, 0.0),
        ("e2b", 0, 0.0),
        ("e2b", 30_000_000, 907.5),  # 100,000 sandboxes for 300 s
        ("nobody", 60, None),
    ],
)
def test_cost_follows_the_published_price(
    provider: str, seconds: float, expected: float | None
) -> None:
    assert cost_usd(provider, seconds, cpu=2, memory_mb=512) == expected


def test_memory_and_cpu_are_paid_by_the_second() -> None:
    prices = {"acme": Price(cpu_usd=0.5, gib_usd=0.25)}
    assert cost_usd("acme", 4, cpu=2, memory_mb=2_048, prices=prices) == 6.0
