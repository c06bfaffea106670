from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from shardagent import providers
from shardagent.errors import ConfigError
from shardagent.providers.base import About, Entry
from shardagent.providers.labels import carries, labels_of, name_of
from shardagent.scrub import Scrubber
from shardagent.wire import Plan
from tests.embedded import ROOT

LABELS = {"run": "e2b-3f9a-b", "shard": "12", "attempt": "1", "sandbox": "1234"}


def test_the_distribution_names_the_same_adapters_as_the_code() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"][providers.GROUP] == dict(providers.OWN)


@pytest.mark.parametrize("slug", sorted(providers.OWN))
def test_every_adapter_says_what_it_is(slug: str) -> None:
    about = providers.about(slug)
    assert providers.adapter(slug).slug == slug
    assert about.title
    assert about.waits_for
    if about.entries:
        assert any(entry.secret for entry in about.entries)
        assert about.endpoint.startswith("https://") or slug == "agent-sandbox"
        page = (ROOT / "docs" / "providers.md").read_text()
        assert f"| `{slug}` |" in page


def test_a_missing_key_is_said_by_name() -> None:
    plan = Plan(provider="e2b", sandbox_count=1)
    with pytest.raises(ConfigError, match="api_key"):
        providers.open_provider("e2b", {}, plan)
    with pytest.raises(ConfigError, match="no transport"):
        providers.adapter("sim", "sdk")


def test_another_package_adds_a_provider_by_an_entry_point(tmp_path: Path) -> None:
    info = tmp_path / "acme-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        f"[{providers.GROUP}]\nacme = acme_sandboxes:Acme\nsim = acme_sandboxes:Sim\n"
    )
    (tmp_path / "acme_sandboxes.py").write_text(
        "from shardagent.providers.base import About\n"
        "class Acme:\n    slug = 'acme'\n    about = About(title='Acme')\n"
    )
    code = (
        "from shardagent import providers;"
        "print(providers.about('acme').title, providers.known()['sim'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}"},
        capture_output=True,
        text=True,
        check=True,
    )
    # It is there, and does not replace one of ours.
    assert done.stdout.split() == ["Acme", "shardagent.providers.sim:SimProvider"]


def test_only_what_is_secret_is_scrubbed() -> None:
    about = About(
        title="x", entries=(Entry("key", "Key"), Entry("team", "Team", secret=False))
    )
    config = {"key": "0123456789", "team": "a-long-team", "endpoint": "https://x.test"}
    assert about.secrets(config) == ["0123456789"]


def test_a_secret_is_found_in_every_form() -> None:
    scrub = Scrubber(["pass/word+12"])
    for form in ("pass/word+12", "pass%2Fword%2B12", "cGFzcy93b3JkKzEy"):
        assert scrub.clean(f"x {form} y") == "x [removed] y"


def test_a_name_carries_the_labels_and_comes_back() -> None:
    name = name_of(LABELS)
    assert name == "hf-e2b-3f9a-b-12-1-1234"
    assert labels_of(name) == LABELS
    assert carries(name, {"run": "e2b-3f9a-b", "sandbox": "1234"})
    assert not carries(name, {"run": "e2b-3f9a"})
    assert labels_of("my-own-sandbox") == {}
    assert not carries("my-own-sandbox", {})
