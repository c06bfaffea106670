import pytest
from hypothesis import given
from hypothesis import strategies as st

from runs.barrier import Decision, decide, instant_ahead_us


@pytest.mark.parametrize(
    ("armed", "waited_s", "expected"),
    [
        pytest.param(100, 0, Decision.RELEASE, id="all armed"),
        pytest.param(99, 59.9, Decision.HOLD, id="one missing, time left"),
        pytest.param(98, 60, Decision.RELEASE, id="quorum at the deadline"),
        pytest.param(97, 60, Decision.ABANDON, id="below quorum at the deadline"),
        pytest.param(0, 60, Decision.ABANDON, id="nobody came"),
    ],
)
def test_barrier_decides_by_quorum_and_deadline(
    armed: int, waited_s: float, expected: Decision
) -> None:
    verdict = decide(
        armed=armed, total=100, quorum=0.98, waited_s=waited_s, timeout_s=60
    )
    assert verdict.decision is expected
    assert verdict.why


@given(
    total=st.integers(1, 20_000),
    share=st.floats(0, 1),
    quorum=st.floats(0.01, 1),
    late=st.floats(0, 1e6),
)
def test_barrier_never_holds_after_its_deadline(
    total: int, share: float, quorum: float, late: float
) -> None:
    armed = int(total * share)
    verdict = decide(
        armed=armed, total=total, quorum=quorum, waited_s=60 + late, timeout_s=60
    )
    assert verdict.decision is not Decision.HOLD


def test_instants_lie_at_least_three_heartbeats_ahead() -> None:
    assert instant_ahead_us(1_000, 2.0, 3.0) == 1_000 + 6_000_000
    assert instant_ahead_us(1_000, 0.2, 3.0) == 1_000 + 3_000_000
