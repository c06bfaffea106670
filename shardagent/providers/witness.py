"""The witness (measurement.md §4) in any sandbox that has a POSIX shell.

Two background processes: one counts a tick each 250 ms, the other keeps the nonce in
its memory and answers challenges through FIFOs. A sandbox that sleeps ticks not; one
that was made anew from its disk has no nonce.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from shardagent.providers.base import Answer

FOLDER = "/tmp/.holdfast"  # noqa: S108  in the sandbox, which is ours alone
START_NAME = "holdfast-witness"
PROBE_NAME = "holdfast-probe"
_MARK = "holdfast-witness-says"

# The answering one: $1 nonce, $2 folder. Opening a FIFO for both never blocks; what
# is written before anybody has it open is lost, so the start waits for its word.
_DAEMON = """trap '' HUP
(i=0; while sleep 0.25 && kill -0 $$; do i=$((i+1)); echo $i >"$2/t"; done) &
exec 3<>"$2/q"
echo up >"$2/a"
while read -r c <&3; do
s=$(printf %s "$1$c" | sha256sum)
t=; while [ -z "$t" ]; do read -r t <"$2/t"; done
echo "${s%% *} $t" 1<>"$2/$c"
done"""
_START = """d=$3; rm -rf "$d"; mkdir -p "$d" && mkfifo "$d/q" "$d/a" || exit 1
command -v sha256sum >/dev/null || exit 1
echo 0 >"$d/t"
$(command -v setsid || true) sh -c "$2" holdfast "$1" "$d" </dev/null >/dev/null 2>&1 &
echo $! >"$d/p"
read -r _ <"$d/a\""""
# $1 challenge, $2 folder, then the probe's command.
_PROBE = """c=$1; d=$2; shift 2; "$@"; s=$?
if read -r p 2>/dev/null <"$d/p" && kill -0 "$p" 2>/dev/null; then
mkfifo "$d/$c" && exec 3<>"$d/$c" && echo "$c" 1<>"$d/q" && read -r l <&3
rm -f "$d/$c"
echo; echo "holdfast-witness-says $l"
fi
exit $s"""


def start_command(nonce: str, folder: str = FOLDER) -> list[str]:
    """What starts the witness; exit status 0 when it runs."""
    return ["sh", "-c", _START, START_NAME, nonce, _DAEMON, folder]


def probe_command(
    command: Sequence[str], challenge: str, folder: str = FOLDER
) -> list[str]:
    """The probe's command and the question to the witness, as one command."""
    return ["sh", "-c", _PROBE, PROBE_NAME, challenge, folder, *command]


def read_answer(answer: Answer) -> Answer:
    """The command's own answer, with the witness's ticks and digest if it spoke."""
    output, mark, said = answer.output.rpartition(f"\n{_MARK} ")
    digest, _, ticks = said.strip().partition(" ")
    if not mark or not ticks.isdecimal():
        return answer
    return replace(answer, output=output, ticks=int(ticks), digest=digest)


def spoken(output: str, ticks: int, digest: str) -> str:
    """What a probe's command prints; for stand-ins."""
    return f"{output}\n{_MARK} {digest} {ticks}\n"
