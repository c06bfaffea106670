"""Novita's API is E2B's; its SDK names a sandbox by host, here by its token."""

from runs.simcloud.e2b import routes

__all__ = ["routes"]
