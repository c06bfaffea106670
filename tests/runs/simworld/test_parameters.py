from __future__ import annotations

import pytest
from pydantic import ValidationError

from runs.simworld.config import WorldConfig
from runs.simworld.parameters import World


def test_defaults_are_a_world_without_faults() -> None:
    world = World()
    assert (world.profile, world.mode, world.deaths) == ("e2b", "burst", 0)


@pytest.mark.parametrize(
    ("given", "kept"),
    [(7, 7), (0.25, 0.25), ("2.5 %", 0.025), ("100%", 1.0), (7.0, 7), (0, 0)],
)
def test_rates_are_counts_probabilities_or_percentages(
    given: object, kept: float
) -> None:
    found = World.model_validate({"deaths": given}).deaths
    assert found == kept
    assert isinstance(found, type(kept))


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"dead": 3}, "dead"),
        ({"profile": "nowhere"}, "unknown profile 'nowhere'; known: archil"),
        ({"deaths": -1}, "must not be negative"),
        ({"deaths": 1.5}, "must not be above 1"),
        ({"deaths": "many"}, "neither a number"),
        ({"deaths": "x %"}, "not a percentage"),
        ({"death_window_s": [9, 3]}, "death_window_s"),
        ({"profile": "tenki", "day": 5}, "measured on 2 days only"),
        ({"latency_scale": -1}, "latency_scale"),
    ],
)
def test_bad_parameters_are_named(
    parameters: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ValidationError, match=complaint):
        World.model_validate(parameters)


def test_exact_counts_must_fit_the_run() -> None:
    world = World.model_validate({"deaths": 6, "never_ready": 3, "rack_size": 2})
    world.check(11, 0)
    with pytest.raises(ValueError, match="11 sandboxes are to misbehave"):
        world.check(10, 0)
    with pytest.raises(ValueError, match="only 1 exist"):
        World.model_validate({"slow_shards": 2}).check(10, 1)


def test_a_config_needs_a_place_for_the_truth() -> None:
    config = {
        "run": "alpha",
        "seed": 1,
        "sandbox_count": 1,
        "secret": "12345678",
        "clock": {"base_wall_us": 0, "base_mono_raw_ns": 0},
    }
    with pytest.raises(ValidationError, match="no place for the truth"):
        WorldConfig.model_validate(config)
