"""The house rules, as a test: budgets, rings of imports, words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("benchsite", "runs", "shardagent")
MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
POSITIONAL_MAX = 5
TEMPLATE_LINES_MAX = 150
SCRIPT_LINES_MAX = 200
STYLESHEET_LINES_MAX = 250
BANNED_MODULES = {"utils", "helpers", "common", "services", "managers"}
# Who may import an outside system: one module or package each.
EDGES = {
    "clickhouse_connect": ("runs/clickhouse/",),
    "boto3": ("runs/objects.py", "runs/fleets/ec2.py"),
    "botocore": ("runs/objects.py", "runs/fleets/ec2.py"),
    "plotly": ("runs/charts/",),
    "asyncssh": ("runs/fleets/ssh.py",),
    "kubernetes": ("runs/fleets/kubernetes.py",),
    "dramatiq": ("runs/actors.py", "benchsite/embedded.py", "runs/broker.py"),
}
# Values in, values out: no clock, no I/O, no settings.
CORE = ("barrier", "liveness", "plan", "ranking", "statistics", "verdict")
CORE_BANNED = ("django", "time", "datetime", "os", "runs.models", "runs.objects")


def modules() -> list[Path]:
    return list(_modules())


def _modules() -> Iterator[Path]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "migrations" not in path.parts:
                yield path


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def reaches(names: set[str], package: str) -> bool:
    return any(n == package or n.startswith(package + ".") for n in names)


@pytest.mark.parametrize("path", modules(), ids=name)
def test_modules_and_functions_keep_their_budgets(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= MODULE_LINES_MAX
    assert path.stem not in BANNED_MODULES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", modules(), ids=name)
def test_each_outside_system_has_one_door(path: Path) -> None:
    names = imports(path)
    for package, doors in EDGES.items():
        if not name(path).startswith(doors):
            assert not reaches(names, package), f"{name(path)} imports {package}"


def test_the_agent_never_imports_the_site() -> None:
    for path in (ROOT / "shardagent").rglob("*.py"):
        names = imports(path)
        for package in ("runs", "benchsite", "django", "boto3"):
            assert not reaches(names, package), f"{name(path)} imports {package}"


@pytest.mark.parametrize("stem", CORE)
def test_the_core_is_pure(stem: str) -> None:
    names = imports(ROOT / "runs" / f"{stem}.py")
    for package in CORE_BANNED:
        assert not reaches(names, package)


def test_drivers_do_not_import_one_another() -> None:
    for path in (ROOT / "runs" / "views").rglob("*.py"):
        assert not reaches(imports(path), "runs.management")
    for flow in ("lifecycle", "ingest", "seal", "supervise", "launch"):
        names = imports(ROOT / "runs" / f"{flow}.py")
        for driver in ("runs.views", "runs.actors", "runs.management"):
            assert not reaches(names, driver), f"{flow} imports {driver}"


@pytest.mark.parametrize(
    ("folder", "pattern", "most"),
    [
        ("templates", "*.html", TEMPLATE_LINES_MAX),
        ("static/js", "*.js", SCRIPT_LINES_MAX),
        ("static/css", "*.css", STYLESHEET_LINES_MAX),
    ],
)
def test_pages_keep_their_budgets(folder: str, pattern: str, most: int) -> None:
    paths = list((ROOT / folder).rglob(pattern))
    assert paths
    for path in paths:
        assert path.read_text().count("\n") <= most, name(path)


def test_every_template_script_and_stylesheet_is_used() -> None:
    pages = "\n".join(
        path.read_text()
        for folder, ending in (("templates", "html"), ("runs", "py"), ("static", "js"))
        for path in (ROOT / folder).rglob(f"*.{ending}")
    )
    pages += "\n".join(p.read_text() for p in (ROOT / "static").rglob("*.css"))
    for folder in ("templates", "static/js", "static/css"):
        for path in (ROOT / folder).rglob("*.*"):
            if path.stem not in {"404", "403", "500", "400"}:
                assert path.name in pages, f"nothing uses {name(path)}"


def test_there_is_no_todo_without_owner_and_date() -> None:
    for path in modules():
        for line in path.read_text().splitlines():
            if "TODO" in line:
                assert re.search(r"TODO\(\w+, \d{4}-\d\d-\d\d\)", line), name(path)
