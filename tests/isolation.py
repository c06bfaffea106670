"""Loaded before Django: every test run has a DATA folder of its own, never ./var."""

import os
import tempfile

_DATA = tempfile.mkdtemp(prefix="holdfast-test-")
os.environ["DATA"] = _DATA
os.mkdir(os.path.join(_DATA, "static"))  # as collectstatic would
os.environ.setdefault("LOG_LEVEL", "WARNING")
# What embedded sites begin with: one for all workers, made by the first who needs it.
_OWN_TEMPLATE = "HOLDFAST_TEST_TEMPLATE" not in os.environ
if _OWN_TEMPLATE:
    os.environ["HOLDFAST_TEST_TEMPLATE"] = tempfile.mkdtemp(prefix="holdfast-template-")


def pytest_unconfigure() -> None:
    import shutil

    shutil.rmtree(_DATA, ignore_errors=True)
    if _OWN_TEMPLATE:
        shutil.rmtree(os.environ["HOLDFAST_TEST_TEMPLATE"], ignore_errors=True)
