from __future__ import annotations

from pathlib import Path

from benchsite.static_files import HashedFiles


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
