"""Run folders: what a run writes, whether it may go on, and its log."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pyrogen.cli.parsing import Card
from pyrogen.cli.problems import CommandError, one_line
from pyrogen.files import check_writable, target_of, write_bytes
from pyrogen.locks import running

log = logging.getLogger("pyrogen")

#: Keys of a card that may differ in a run that goes on: where the folder is.
INCIDENTAL = ("run",)


class RunFolder:
    """The folder of a run.

    Args:
        path: of the folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.card = self.path / "card.yaml"
        self.log = self.path / "run.log"
        self.checkpoint = self.path / "checkpoint.h5"
        self.posterior = self.path / "posterior.h5"
        self.held_out = self.path / "held_out.h5"
        self.held_out_context = self.path / "held_out_context.h5"
        self.generated = self.path / "generated.h5"
        self.figures = self.path / "figures"
        self.report = self.path / "report.html"
        self.summary = self.path / "summary.json"

    def check_is_run(self) -> None:
        """Check that a run has begun here.

        Raises:
            CommandError: it has not.
        """
        if not self.path.exists():
            raise CommandError(f"no such run folder: {self.path}")
        if not self.card.exists():
            raise CommandError(f"{self.path} is no run folder: it has no card.yaml; pyrogen fit card.yaml makes one")

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.read_summary().get("status") == "finished"

    def read_summary(self) -> dict[str, Any]:
        """``summary.json``, or nothing."""
        try:
            found = json.loads(self.summary.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def write_summary(self, content: Mapping[str, Any]) -> None:
        """Write ``summary.json`` in one piece."""
        write_bytes(self.summary, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """A block in which no other process runs in this folder, and whose messages are in its log too.

        Raises:
            PathInUseError: another process is in the folder.
            OSError: the folder cannot be made or written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with running(target_of(self.card), "run the card"):
            check_writable(self.summary)
            with logged(self.log):
                yield

    def begin(self, card: Card, there: Mapping[str, Any] | None) -> None:
        """Write the card, or check that the run that is there has the same one.

        Args:
            card: the card.
            there: settings of the run that is there, with the defaults of what its card does not have; None: no run.

        Raises:
            CommandError: it has another one; the text names the differences.
        """
        if there is None:
            strange = [path.name for path in (self.checkpoint, self.posterior) if path.exists()]
            if strange:
                raise CommandError(f"{self.path} holds a {strange[0]} but no card.yaml; give another run folder")
            write_bytes(self.card, card.text().encode())
            return
        found = list(differences(there, card.values))
        if found:
            lines = "".join(f"\n  {line}" for line in found)
            raise CommandError(
                f"{self.path} holds a run of another card:{lines}\nGive another folder (--run), or delete this one"
            )


def differences(there: Mapping[str, Any], here: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """Settings in which two cards differ, in words."""
    for name in {**there, **here}:
        key, a, b = f"{before}{name}", there.get(name), here.get(name)
        if key in INCIDENTAL or a == b:
            continue
        if isinstance(a, Mapping) and isinstance(b, Mapping) and not before:
            yield from differences(a, b, f"{key}.")
        else:
            told = [json.dumps(its.get(name)) if name in its else "absent" for its in (there, here)]
            yield f"{key}: {told[0]} in the folder, {told[1]} in this card"


@contextlib.contextmanager
def logged(path: Path | None) -> Iterator[None]:
    """A block whose messages and warnings go to a file too, with the time of each."""
    handler = logging.FileHandler(path, encoding="utf-8") if path is not None else None
    if handler is not None:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        log.addHandler(handler)
    try:
        yield
    except BaseException as error:  # what ends the run is told in the terminal later on, when this log is closed
        if handler is not None:
            handler.handle(log.makeRecord(log.name, logging.ERROR, "", 0, one_line(error), (), None))
        raise
    finally:
        if handler is not None:
            log.removeHandler(handler)
            handler.close()


@contextlib.contextmanager
def told(debug: bool = False) -> Iterator[None]:
    """A block whose messages and warnings go to the terminal, one line each."""
    terminal = logging.StreamHandler()
    terminal.setFormatter(logging.Formatter("%(message)s"))
    before = log.handlers[:], log.level, log.propagate, warnings.showwarning
    log.handlers[:] = [terminal]
    log.setLevel(logging.DEBUG if debug else logging.INFO)
    log.propagate = False

    def show(message: Any, category: type[Warning], *where: Any) -> None:
        log.warning("warning: %s", message)

    try:
        with warnings.catch_warnings():
            warnings.showwarning = show  # type: ignore[assignment]
            yield
    finally:
        log.handlers[:], log.level, log.propagate, warnings.showwarning = before
