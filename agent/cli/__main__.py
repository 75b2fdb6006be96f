"""`python -m agent.cli`: the same as `hyprbox`."""

from __future__ import annotations

import sys

from agent.cli.root import main

if __name__ == "__main__":
    sys.exit(main())
