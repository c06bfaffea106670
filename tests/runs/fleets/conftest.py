"""The long ones among these are for `make fleets`."""

from tests.fleets.conftest import pytest_collection_modifyitems

__all__ = ["pytest_collection_modifyitems"]
