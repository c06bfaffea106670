"""The shard agent: drives one share of a Run's Sandboxes and records facts."""

__version__ = "0.1.0"
