"""The documents say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README_LINES_MAX = 120


def test_every_setting_is_documented_and_every_documented_one_exists() -> None:
    code = (ROOT / "benchsite" / "settings.py").read_text()
    readers = r"env\.(?:text|flag|integer|secret_or_file)\(\s*\"([A-Z0-9_]+)\""
    read = set(re.findall(readers, code))
    table = (ROOT / "docs" / "settings.md").read_text()
    documented = set(re.findall(r"^\| `([A-Z0-9_]+)` \|", table, flags=re.MULTILINE))
    assert read == documented


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text()
    assert text.count("\n") < README_LINES_MAX
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if "://" not in target:
            assert (ROOT / target).exists(), target


def test_the_glossary_knows_the_models() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text()
    for word in ("Run", "Host", "Attempt", "Segment", "Journal", "Plan", "Verdict"):
        assert f"| {word} |" in glossary
