from __future__ import annotations

from pathlib import Path
from typing import Any

from benchsite.static_files import COLLECTED, HashedFiles, collect


def test_a_script_imports_others_by_their_hashed_names(tmp_path: Path) -> None:
    """Else a browser loads a module twice, and keeps its plain name a minute only."""
    (tmp_path / "page.js").write_text('import { draw } from "./chart.js";\ndraw();\n')
    (tmp_path / "chart.js").write_text("export function draw() {}\n")
    storage = HashedFiles(location=str(tmp_path), base_url="/static/")
    names = {name: (storage, name) for name in ("page.js", "chart.js")}
    hashed = {old: new for old, new, _ in storage.post_process(names)}
    assert hashed["chart.js"] != "chart.js"
    page = (tmp_path / hashed["page.js"]).read_text()
    assert f'from "./{hashed["chart.js"]}"' in page


def test_files_are_collected_anew_only_where_they_changed(
    tmp_path: Path, settings: Any
) -> None:
    source, root = tmp_path / "source", tmp_path / "root"
    source.mkdir()
    (source / "page.css").write_text("a { color: red }\n")
    settings.STATICFILES_DIRS = [source]
    settings.STATICFILES_FINDERS = [
        "django.contrib.staticfiles.finders.FileSystemFinder"
    ]
    settings.STATIC_ROOT = root
    assert collect()
    first = {path.name for path in root.glob("page.*.css")}
    assert not collect()
    (source / "page.css").write_text("a { color: blue }\n")
    assert collect()
    assert {path.name for path in root.glob("page.*.css")} > first
    (root / COLLECTED).unlink()  # as after a kill in the middle
    assert collect()
