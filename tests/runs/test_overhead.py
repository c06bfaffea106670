"""What a Run's page says of our own client is what was measured, or nothing."""

from __future__ import annotations

import datetime

import pytest

from runs import overhead
from runs.overhead import overhead_of
from shardagent import providers


def test_every_recorded_figure_is_of_a_transport_that_there_is() -> None:
    figures = overhead._figures()
    assert figures
    for (provider, transport), found in figures.items():
        assert transport in providers.about(provider).transports
        assert 0 < found.p50_ms <= found.p99_ms
        assert found.together == 100
        assert datetime.date.fromisoformat(found.measured)
        assert found.machine


@pytest.mark.parametrize("slug", ["sim", "local", "nobody"])
def test_what_was_not_measured_has_no_figure(slug: str) -> None:
    assert overhead_of(slug, "thin") is None
