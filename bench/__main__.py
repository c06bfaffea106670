"""Every benchmark of the project, one after another: `make bench`.

Each is a program of its own that prints one JSON object on its last line. All of it
goes to $DATA/bench.json, and as a table to standard output.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BENCHES = {
    "coverage": ("-m", "bench.coverage"),
    "agent_weight": ("bench/agent_weight.py", "--json"),
}


def measured(words: tuple[str, ...]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    lines = done.stdout.strip().splitlines()
    try:
        found: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError):
        return {"ok": False, "error": done.stderr.strip()[-500:]}
    return {**found, "ok": done.returncode == 0}


def main() -> int:
    results = {}
    for name, words in BENCHES.items():
        results[name] = measured(words)
        print(name)
        for key, value in results[name].items():
            print(f"  {key:<20} {value}")
    target = Path(os.environ.get("DATA", "var")) / "bench.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(results, indent=1))
    print(f"written to {target}")
    return 0 if all(result["ok"] for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
