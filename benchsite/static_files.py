"""Static files under names with their hash, so that browsers keep them for ever."""

from __future__ import annotations

from whitenoise.storage import CompressedManifestStaticFilesStorage


class HashedFiles(CompressedManifestStaticFilesStorage):  # type: ignore[misc]  # untyped
    """Imports between scripts are hashed too: else a module is loaded twice, once by
    each of its names."""

    support_js_module_import_aggregation = True
