from __future__ import annotations

from collections import Counter
from typing import Any

from runs.simworld.fates import CreateFate, Dealer, Fate
from runs.simworld.parameters import World

COUNT = 2_000


def dealer(seed: int = 1, **parameters: Any) -> Dealer:
    return Dealer(World.model_validate(parameters), seed, COUNT, 20)


def fates(dealer: Dealer) -> list[Fate]:
    return [dealer.deal(index, index // 100) for index in range(COUNT)]


def test_exact_counts_are_exact_and_do_not_overlap() -> None:
    dealt = dealer(
        create_errors=5,
        create_hangs=4,
        late_creates=3,
        never_ready=7,
        deaths=6,
        flaky_probes=8,
        rack_size=9,
    )
    found = fates(dealt)
    assert Counter(fate.create for fate in found) == {
        CreateFate.OK: COUNT - 12,
        CreateFate.ERROR: 5,
        CreateFate.HANG: 4,
        CreateFate.LATE: 3,
    }
    assert sum(fate.unready is not None for fate in found) == 7
    assert sum(fate.dies_after_us is not None for fate in found) == 6
    assert sum(fate.flaky_probe is not None for fate in found) == 8
    assert len(dealt.rack) == 9
    in_rack = [found[index] for index in dealt.rack]
    assert all(
        fate.create is CreateFate.OK and fate.unready is None for fate in in_rack
    )


def test_a_fate_depends_on_seed_and_index_alone() -> None:
    parameters: dict[str, Any] = {"deaths": 0.1, "never_ready": 20, "rack_size": 5}
    there = fates(dealer(**parameters))
    back = dealer(**parameters)
    assert [back.deal(i, i // 100) for i in reversed(range(COUNT))] == there[::-1]
    assert fates(dealer(seed=2, **parameters)) != there


def test_probabilities_are_met_about() -> None:
    found = fates(dealer(create_errors=0.1, death_rate_per_s=0.01))
    errors = sum(fate.create is CreateFate.ERROR for fate in found)
    assert 150 < errors < 250
    within_100_s = sum((fate.dies_after_us or 0) < 100_000_000 for fate in found)
    assert 0.58 < within_100_s / COUNT < 0.68  # 1 − 1/e


def test_deaths_fall_into_their_window() -> None:
    found = fates(dealer(deaths=50, death_window_s=[2, 4]))
    died = [fate.dies_after_us for fate in found if fate.dies_after_us is not None]
    assert len(died) == 50
    assert all(2_000_000 <= after <= 4_000_000 for after in died)


def test_slow_shards_slow_all_their_sandboxes() -> None:
    found = fates(dealer(slow_shards=2, slow_factor=4))
    slow = [index // 100 for index, fate in enumerate(found) if fate.factor == 4]
    assert len(slow) == 200
    assert len(set(slow)) == 2


def test_readiness_takes_its_share_of_the_tti() -> None:
    whole = fates(dealer(ready_share=0))[3]
    split = fates(dealer(ready_share=0.25))[3]
    assert whole.ready_us == 0
    assert split.ready_us == int(whole.create_us * 0.25)
    assert split.create_us + split.ready_us == whole.create_us
