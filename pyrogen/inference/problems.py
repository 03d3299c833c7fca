"""What goes wrong in a run: errors that end it, and warnings that its result carries on as findings."""

from __future__ import annotations

from collections.abc import Iterable

from pyrogen.posterior.info import Finding
from pyrogen.warn import warn


class TrainingDivergedError(RuntimeError):
    """The loss or its gradient was NaN or infinite for many steps in a row, or there is nothing left to learn from."""


class SamplingWarning(UserWarning):
    """The result of a run is not what a posterior needs; the text says why and what to try."""


class SamplingError(RuntimeError):
    """A chain or a network cannot go on; the text names it and says what to try."""


class NotBatchedError(Exception):
    """Several samples cannot be one batch; the text says why, and each is then trained by itself."""


def report(findings: Iterable[Finding]) -> None:
    """Warn of every finding, in the line of the user's script that asked for the run."""
    for finding in findings:
        warn(str(finding), SamplingWarning)
