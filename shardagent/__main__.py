"""`python -m shardagent`."""

from shardagent.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
