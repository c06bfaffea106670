from dataclasses import replace

from runs.ranking import Launch, boards, class_of

TODAY = 20_000
RUN = Launch(
    code="a",
    provider="alpha",
    class_id="c",
    day=TODAY,
    state="sealed",
    verdict="VALID",
    target=1_000,
    held=1_000,
    harness=0,
    tti_p99_us=500_000,
)


def runs(provider: str, *held: int, **changes: object) -> list[Launch]:
    return [
        replace(
            RUN,
            code=f"{provider}{i}",
            provider=provider,
            day=TODAY - i,
            held=h,
            **changes,
        )  # type: ignore[arg-type]
        for i, h in enumerate(held)
    ]


def test_wholly_better_providers_rank_first_and_overlap_shares_a_rank() -> None:
    launches = runs("good", 999, 998, 997) + runs("even", 999, 990, 997)
    launches += runs("bad", 500, 510, 520)
    (board,) = boards(launches, TODAY)
    assert [(p.provider, p.rank) for p in board.places] == [
        ("good", 1),
        ("even", 1),
        ("bad", 3),
    ]


def test_fewer_than_three_runs_on_three_days_are_not_ranked() -> None:
    same_day = [replace(x, day=TODAY) for x in runs("one", 999, 999, 999)]
    (board,) = boards(same_day + runs("two", 1_000, 1_000), TODAY)
    assert {p.label for p in board.places} == {"few runs"}
    assert {p.rank for p in board.places} == {None}


def test_every_launch_stays_listed_but_only_valid_ones_count() -> None:
    launches = runs("p", 900, 910, 920)
    launches += [replace(RUN, code="x", provider="p", verdict="INVALID", held=1_000)]
    launches += [replace(RUN, code="y", provider="p", verdict="SUSPECT", held=1_000)]
    launches += [replace(RUN, code="z", provider="p", state="arming", held=None)]
    launches += [replace(RUN, code="h", provider="p", harness=21)]
    launches += [replace(RUN, code="s", provider="p", barred=("not held to its end",))]
    (board,) = boards(launches, TODAY)
    (place,) = board.places
    assert place.share_held == 0.91
    assert len(place.used) == 3
    assert len(place.launched) == 8


def test_old_runs_leave_the_board() -> None:
    assert boards([replace(RUN, day=TODAY - 30)], TODAY) == []


def test_harness_losses_leave_the_denominator() -> None:
    (board,) = boards([replace(RUN, held=980, harness=20)], TODAY)
    assert board.places[0].share_held == 1


def test_a_class_changes_with_the_load_but_not_with_the_note() -> None:
    plan = {"sandbox_count": 10, "hold_s": 60, "note": "x"}
    assert class_of(plan) == class_of({**plan, "note": "y"})
    assert class_of(plan) != class_of({**plan, "hold_s": 61})


def test_a_barred_run_is_listed_and_does_not_count() -> None:
    launches = runs("p", 900, 910, 920)
    launches += [replace(RUN, code="q", provider="p", barred=("quota-bound",))]
    (board,) = boards(launches, TODAY)
    (place,) = board.places
    assert (len(place.used), len(place.launched)) == (3, 4)
    assert place.share_held == 0.91


def test_hosts_that_differ_widen_the_interval() -> None:
    """The same three Runs, once carried by like hosts, once by very unlike ones."""

    def interval(by_host: tuple[tuple[int, int, int], ...]) -> float:
        (board,) = boards(runs("p", 900, 900, 900, by_host=by_host), TODAY)
        (place,) = board.places
        assert place.low is not None
        assert place.high is not None
        assert place.low <= 0.9 <= place.high
        return place.high - place.low

    assert interval(()) == 0
    assert interval(((90, 100, 10),)) == 0
    assert interval(((0, 100, 1), (100, 100, 9))) > 0.05
    assert interval(((45, 50, 2), (90, 100, 9))) == 0, "unlike in size alone"


def test_only_like_machines_are_one_class() -> None:
    launches = runs("small", 900, 900, 900, cpus=1.0, memory_bytes=512 << 20)
    launches += runs("alike", 900, 900, 900, cpus=1.05, memory_bytes=500 << 20)
    launches += runs("big", 999, 999, 999, cpus=2.0, memory_bytes=512 << 20)
    launches += runs("silent", 999, 999, 999)
    lost = replace(RUN, code="lost", provider="big", verdict=None, held=None)
    found = boards([*launches, lost], TODAY)
    by_class = {b.class_id: {p.provider for p in b.places} for b in found}
    assert by_class == {
        "c-1.05c500m": {"small", "alike"},
        "c-2c512m": {"big"},
        "c": {"silent"},
    }
    (big,) = next(b.places for b in found if b.cpus == 2)
    assert (len(big.used), len(big.launched)) == (3, 4)


def test_latency_orders_equals_only_where_the_way_there_is_alike() -> None:
    def order(far_us: int) -> tuple[list[str], bool]:
        slow = runs("slow", 900, 900, 900, connect_us=1_000)
        quick = runs("quick", 900, 900, 900, connect_us=far_us)
        quick = [replace(x, tti_p99_us=100_000) for x in quick]
        (board,) = boards(slow + [replace(x, held=899) for x in quick], TODAY)
        return [p.provider for p in board.places], board.latency_compared

    assert order(11_000) == (["slow", "quick"], True)
    assert order(11_001) == (["slow", "quick"], False)


def test_of_equal_shares_the_quicker_stands_first_unless_too_far_apart() -> None:
    def first(far_us: int) -> str:
        alpha = runs("alpha", 900, 900, 900, connect_us=1_000)
        quick = runs("quick", 900, 900, 900, connect_us=far_us, tti_p99_us=100_000)
        (board,) = boards(alpha + quick, TODAY)
        return board.places[0].provider

    assert first(1_500) == "quick"
    assert first(30_000) == "alpha"
