"""Loaded before Django: every test run has a DATA folder of its own, never ./var."""

import os
import tempfile

_DATA = tempfile.mkdtemp(prefix="holdfast-test-")
os.environ["DATA"] = _DATA
os.mkdir(os.path.join(_DATA, "static"))  # as collectstatic would
os.environ.setdefault("LOG_LEVEL", "WARNING")


def pytest_unconfigure() -> None:
    import shutil

    shutil.rmtree(_DATA, ignore_errors=True)
