"""What the package tells besides progress and warnings: Python's ``logging``, by the logger ``"pyrogen"``.

INFO: what begins, goes on and ends, and which files are read and written. DEBUG: every checkpoint besides. Nothing is
shown unless the program asks for it, by :func:`set_verbosity` or by handlers of its own::

    logging.basicConfig(level="INFO")

What is wrong with data or with a result is a warning of Python's ``warnings``, which
``logging.captureWarnings(True)`` sends to the log.
"""

from __future__ import annotations

import logging
import sys

from tqdm import tqdm

from pyrogen.checks import door, one_of, optional

LOG = logging.getLogger("pyrogen")
LOG.addHandler(logging.NullHandler())

FORM = "%(asctime)s %(levelname)s pyrogen: %(message)s"


class _BesideBars(logging.Handler):
    """Writes to standard error, between progress bars and not into them."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


_handler = _BesideBars()
_handler.setFormatter(logging.Formatter(FORM, "%H:%M:%S"))


@door(level=optional(one_of("debug", "info", "warning", "error")))
def set_verbosity(level: str | None) -> None:
    """Write what the package tells to standard error, with the time.

    Programs with handlers of their own (``logging.basicConfig``, ``logging.getLogger("pyrogen").addHandler``) need no
    call of it.

    Args:
        level: ``"info"``: what begins and ends, and files; ``"debug"``: every checkpoint, too; ``"warning"`` and
            ``"error"``: only what is that serious. None: nothing, as at the start.
    """
    LOG.removeHandler(_handler)
    LOG.setLevel(logging.NOTSET if level is None else level.upper())
    if level is not None:
        LOG.addHandler(_handler)


def tell(message: str) -> None:
    """Log, as a warning, what nobody must miss: where no handler takes it, it goes to standard error."""
    LOG.warning(message)
    logger: logging.Logger | None = LOG
    while logger is not None:
        if any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers):
            return
        logger = logger.parent if logger.propagate else None
    print(message, file=sys.stderr, flush=True)
