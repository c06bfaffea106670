"""What the agent weighs alone: its wheel in an empty venv.

    python bench/agent_weight.py [--json]

Builds the wheel, installs it with pip into a fresh venv, and reports distributions, MB
on disk, import time (minimum of 5) and RSS after the import. RSS while driving 100
sandboxes is in every Run's own health events (`rss_bytes`).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMPORTS = 5
AIMS = {"distributions": 20, "megabytes": 40, "rss_megabytes": 60}
_TIMED = (
    "import time; a = time.perf_counter(); import shardagent.cli, shardagent.runner;"
    "b = time.perf_counter(); import resource;"
    "print((b - a) * 1000,"
    " resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
)


def weigh() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        wheels = folder / "wheels"
        shutil.copytree(ROOT / "shardagent", folder / "sources" / "shardagent")
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, folder / "sources")
        pip = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps")
        _run(*pip, "-w", wheels, folder / "sources")
        (wheel,) = wheels.glob("*.whl")
        venv.create(folder / "venv", with_pip=True)
        python = folder / "venv" / "bin" / "python"
        _run(python, "-m", "pip", "install", "-q", wheel)
        freeze = _run(python, "-m", "pip", "list", "--format=json")
        names = {row["name"] for row in json.loads(freeze)} - {"pip", "setuptools"}
        times = [
            [float(word) for word in _run(python, "-c", _TIMED).split()]
            for _ in range(IMPORTS)
        ]
        return {
            "distributions": len(names),
            "megabytes": round(_megabytes(python, names), 1),
            "wheel_kilobytes": round(wheel.stat().st_size / 1024, 1),
            "import_ms": round(min(took for took, _ in times)),
            "rss_megabytes": round(min(rss for _, rss in times), 1),
        }


def _megabytes(python: Path, names: set[str]) -> float:
    """On disk, bytecode included, without pip itself."""
    site = Path(
        _run(
            python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"
        ).strip()
    )
    total = sum(
        path.stat().st_size
        for path in site.rglob("*")
        if path.is_file()
        and path.relative_to(site).parts[0].split("-")[0]
        not in {"pip", "setuptools", "pkg_resources", "_distutils_hack"}
    )
    return total / 1024 / 1024


def _run(*command: object) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
        cwd="/",
    )
    return done.stdout


def main() -> None:
    found = weigh()
    if "--json" in sys.argv:
        print(json.dumps(found))
        return
    for name, value in found.items():
        aim = AIMS.get(name)
        met = (
            "" if aim is None else f"  aim {aim}: {'met' if value <= aim else 'missed'}"
        )
        print(f"{name:<18}{value:>10,}{met}")


if __name__ == "__main__":
    main()
