"""What the command lines of the studies share: options, folders for the results, and how a script ends."""

from __future__ import annotations

import argparse
import functools
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyrogen.checks import DEVICE
from pyrogen.files import check_writable
from pyrogen.threads import MOST


def stoppable(script: Callable[..., None]) -> Callable[..., None]:
    """A script that Ctrl-C ends with a line that says how to go on, and with the exit status that shells expect.

    What does not fit into memory ends it with a line, too.
    """

    @functools.wraps(script)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            script(*arguments, **options)
        except KeyboardInterrupt as stop:
            print(f"\n{stop}" if stop.args else "\nstopped by Ctrl-C: repeat the command to go on", file=sys.stderr)
            sys.exit(130)
        except MemoryError as error:
            print(f"error: {error or 'out of memory'}", file=sys.stderr)
            sys.exit(1)

    return run


def add_common(parser: argparse.ArgumentParser, folder: str) -> None:
    """The options that all studies have."""
    parser.add_argument("--seed", type=seed, default=0, metavar="S", help="seed of events and training (0)")
    parser.add_argument(
        "--threads", type=threads, default=1, metavar="T", help="CPU threads (1: the same bits every time)"
    )
    parser.add_argument("--out", type=path, metavar="DIR", help=f"folder for the results ({folder})")


def count(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    return _whole(text, 1)


def several(text: str) -> int:
    """A whole number of at least 2, for argparse."""
    return _whole(text, 2)


def seed(text: str) -> int:
    """A whole number of at least 0 that torch takes as a seed, for argparse."""
    return _whole(text, 0, 2**63 - 1)


def threads(text: str) -> int:
    """A number of CPU threads, for argparse."""
    return _whole(text, 1, MOST)


def _whole(text: str, least: int, most: float = math.inf) -> int:
    try:
        value = int(text.replace("_", ""))
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
    if value > most:
        raise argparse.ArgumentTypeError(f"{text} is more than {most:,}")
    return value


def path(text: str) -> Path:
    """A path, for argparse; no name at all would be the folder where the command runs."""
    if not text.strip():
        raise argparse.ArgumentTypeError("a path without a name; for the folder where you are, give .")
    return Path(text)


def device(text: str) -> str:
    """A device that torch can use on this machine, for argparse."""
    try:
        return DEVICE("device", text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def default_folder(name: str, mode: str, *kinds: str) -> Path:
    """A folder of its own for every mode and transform or backend, so that a quick look does not meet a long run."""
    return Path("out") / "_".join([name, *([mode] if mode != "default" else []), *kinds])


def make_folder(parser: argparse.ArgumentParser, folder: Path) -> Path:
    """Make the output folder before any work is done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        check_writable(folder / "summary.json")
    except OSError as error:
        parser.error(f"--out {folder}: {error.strerror}")
    return folder


def tell_about(checkpoint: Path) -> None:
    """Say how a run can be interrupted, or that one goes on."""
    if checkpoint.exists():
        print(f"going on from {checkpoint}; delete it to start afresh", flush=True)
    else:
        print(f"the run is saved in {checkpoint}: if killed, repeat the command and it goes on", flush=True)
