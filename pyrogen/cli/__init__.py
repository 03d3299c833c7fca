"""The ``pyrogen`` command: run cards and one-line commands for all that the package does.

``main`` runs one; see ``docs/command.md``. Importing this room imports the rooms that the commands need.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Sequence

from pyrogen.cli.commands import COMMANDS, RECIPES, overview, run_command
from pyrogen.cli.problems import FAILED, OK, WRONG, CommandError, Stopped, nearest, one_line, stoppable
from pyrogen.cli.run_folder import told
from pyrogen.files import FileFormatError
from pyrogen.locks import PathInUseError
from pyrogen.signals import uninterrupted

__all__ = ["main"]

log = logging.getLogger("pyrogen")

#: What the user has to change, whenever it happens. Other wrong values are a mistake too, unless a training met them.
MISTAKES = (CommandError, FileFormatError, PathInUseError, ImportError, FileNotFoundError, IsADirectoryError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: of the command line, without the name of the program; None: those of this process.

    Returns:
        The exit code: 0 done, 1 the run failed, 2 a mistake in the command, the card or a file, 130 stopped by Ctrl-C,
        143 by SIGTERM, 129 by SIGHUP.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [each for each in given if each != "--debug"]
    if not given or given[0] in ("-h", "--help", "help"):
        print(overview())
        return OK if given else WRONG
    if given[0] == "--version":
        with uninterrupted():
            import pyrogen

        print(f"pyrogen {pyrogen.__version__}")
        return OK
    name, rest = given[0], given[1:]
    with told(debug):
        if name not in COMMANDS and name not in RECIPES:
            log.error("%s", f"pyrogen: there is no command {name!r}{nearest(name, [*COMMANDS, *RECIPES])}")
            return WRONG
        try:
            with stoppable():
                return run_command(name, rest)
        except Stopped as stop:
            log.error("%s", f"pyrogen {name}: {stop}")
            return stop.exit_code
        except Exception as error:  # --debug tells where
            trains = name not in RECIPES and (COMMANDS[name].card or name == "resume")
            mistakes = MISTAKES if trains else (*MISTAKES, ValueError, TypeError)
            if debug:
                log.error("%s", "".join(traceback.format_exception(error)))
            log.error("%s", f"pyrogen {name}: error: {one_line(error)}")
            return WRONG if isinstance(error, mistakes) else FAILED
