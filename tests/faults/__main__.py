"""python -m tests.faults [NAME[:PHASE] …] [--json FILE]: the fault drills.

Without names every drill is held and docs/reliability.md is written anew.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from tests.embedded import ROOT
from tests.faults.drills import BY_NAME, DRILLS, SANDBOXES
from tests.faults.suite import Result, hold

DOCUMENT = ROOT / "docs" / "reliability.md"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("names", nargs="*", metavar="NAME[:PHASE]")
    parser.add_argument("--json", type=Path, help="write the results there too")
    arguments = parser.parse_args()
    results: list[Result] = []
    for drill, phases in _chosen(arguments.names):
        for result in hold(drill, phases):
            results.append(result)
            _say(result)
            if not arguments.names:  # as it grows: half a table is better than none
                day = time.strftime("%Y-%m-%d", time.gmtime())
                DOCUMENT.write_text(document(results, day))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(r) for r in results], indent=1))
    return 1 if any(result.wrong for result in results) else 0


def _chosen(names: list[str]) -> Iterable[tuple]:  # type: ignore[type-arg]
    if not names:
        yield from ((drill, drill.phases) for drill in DRILLS)
    for name in names:
        name, _, phase = name.partition(":")
        if name not in BY_NAME:
            sys.exit(f"no drill is called {name}; there are {', '.join(BY_NAME)}")
        drill = BY_NAME[name]
        yield drill, (phase,) if phase else drill.phases


def _say(result: Result) -> None:
    word = "skipped" if result.skipped else "WRONG" if result.wrong else "well"
    print(
        f"{result.drill:<16}{result.phase:<13}{word:<8}{result.took_s:>6} s  "
        f"lost {result.seconds_lost} s, {result.events_lost} events; "
        f"leaked {result.leaked}; {result.verdict}; {result.outcomes}{result.skipped}",
        flush=True,
    )
    for line in result.wrong:
        print(f"    {line}", flush=True)


def document(results: list[Result], day: str) -> str:
    """docs/reliability.md, whole."""
    rows = [
        f"| {r.means} | {r.phase.replace('_', ' ')} | {_state(r)} | {r.seconds_lost:g} "
        f"| {r.events_lost:,} | {r.outcomes or '–'} | {r.leaked} | {r.alive_after} "
        f"| {r.verdict or '–'} |"
        for r in results
    ]
    return (
        (ROOT / "tests" / "faults" / "reliability.txt")
        .read_text()
        .format(
            day=day,
            sandboxes=SANDBOXES,
            held=sum(not r.skipped for r in results),
            well=sum(not r.skipped and not r.wrong for r in results),
            rows="\n".join(rows),
        )
    )


def _state(result: Result) -> str:
    if result.skipped:
        return f"skipped: {result.skipped}"
    return "; ".join(result.wrong) or "well"


if __name__ == "__main__":
    sys.exit(main())
