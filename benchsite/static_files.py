"""Static files under names with their hash, so that browsers keep them for ever."""

from __future__ import annotations

from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command
from whitenoise.storage import CompressedManifestStaticFilesStorage

COLLECTED = "collected.txt"  # in STATIC_ROOT: of what it was collected


class HashedFiles(CompressedManifestStaticFilesStorage):  # type: ignore[misc]  # untyped
    """Imports between scripts are hashed too: else a module is loaded twice, once by
    each of its names."""

    support_js_module_import_aggregation = True


def collect() -> bool:
    """Into STATIC_ROOT, where it is not there already; hashing and compressing is a
    third of a start. Whether it was."""
    mark = Path(settings.STATIC_ROOT) / COLLECTED
    sources = _digest()
    if mark.is_file() and mark.read_text() == sources:
        return False
    mark.unlink(missing_ok=True)  # first: who is killed here begins anew
    call_command("collectstatic", verbosity=0, interactive=False)
    mark.write_text(sources)
    return True


def _digest() -> str:
    found = sha256(f"{version('django')} {version('whitenoise')}".encode())
    found.update(Path(__file__).read_bytes())
    for finder in get_finders():
        for path, storage in finder.list([]):
            found.update(path.encode())
            with storage.open(path) as file:
                found.update(file.read())
    return found.hexdigest()
