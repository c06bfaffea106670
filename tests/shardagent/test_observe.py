import subprocess

import pytest

from shardagent.errors import ProviderError
from shardagent.observe import COMMAND, Observed, read

MIB = 1 << 20


@pytest.mark.parametrize(
    ("output", "cpus", "mebibytes"),
    [
        ("4\n\n2097152 kB\n\n\n", 4, 2_048),
        ("8\nmax 100000\n16777216 kB\nmax\n\n", 8, 16_384),
        ("8\n150000 100000\n16777216 kB\n536870912\n\n", 1.5, 512),
        ("8\n\n16777216 kB\n\n9223372036854771712\n", 8, 16_384),
        ("8\n\n16777216 kB\n\n1073741824", 8, 1_024),
        ("\n50000 100000\n\n268435456\n\n", 0.5, 256),
    ],
)
def test_the_tightest_limit_counts(output: str, cpus: float, mebibytes: int) -> None:
    assert read(output) == Observed(cpus, mebibytes * MIB)


@pytest.mark.parametrize(
    "output", ["", "v22.1.0\n", "0\n\n1 kB\n", "2\n", "2\n\n-5 kB\n\n\n", "1" * 500]
)
def test_what_is_no_answer_is_said_to_be_none(output: str) -> None:
    with pytest.raises(ProviderError, match="no CPU count or no memory"):
        read(output)


def test_a_real_shell_answers() -> None:
    done = subprocess.run(COMMAND, capture_output=True, text=True, check=True)
    seen = read(done.stdout)
    assert 0 < seen.cpus <= 4_096
    assert seen.memory_bytes > 16 * MIB
