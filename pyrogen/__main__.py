"""``python -m pyrogen``: the command, see ``docs/command.md``."""

import sys

from pyrogen.cli import main

if __name__ == "__main__":
    sys.exit(main())
