import pytest

from runs.liveness import Liveness, liveness


@pytest.mark.parametrize(
    ("heard_s", "listening_s", "now_s", "expected"),
    [
        pytest.param(100, 0, 105, Liveness.LIVE, id="heard just now"),
        pytest.param(100, 0, 107, Liveness.SILENT, id="three intervals of silence"),
        pytest.param(100, 0, 131, Liveness.LOST, id="beyond the lease"),
        pytest.param(100, 128, 131, Liveness.LIVE, id="the ear was closed until now"),
        pytest.param(None, 100, 131, Liveness.LOST, id="never heard"),
    ],
)
def test_silence_counts_only_while_the_site_listened(
    heard_s: int | None, listening_s: int, now_s: int, expected: Liveness
) -> None:
    assert (
        liveness(
            last_heard_us=None if heard_s is None else heard_s * 1_000_000,
            listening_since_us=listening_s * 1_000_000,
            now_us=now_s * 1_000_000,
            interval_s=2,
            lease_s=30,
        )
        is expected
    )
