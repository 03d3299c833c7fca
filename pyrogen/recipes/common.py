"""What the recipes share: held-out events, the folder of the results, and the lines about an interrupted run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyrogen.bayes import BayesianFlow
from pyrogen.checks import NATURAL, require
from pyrogen.events import EventSample
from pyrogen.files import FileFormatError, check_writable, write_bytes
from pyrogen.inference import CheckpointMismatchError
from pyrogen.posterior import Posterior
from pyrogen.threads import MOST

HELD_OUT = 0.2  #: Fraction of the events that are not learned.
CHECKPOINT = "run_checkpoint.h5"  #: The interrupted run, in the folder of the results.
DATA = Path(__file__).parent / "data"  #: Small samples that the package brings along.


def check_threads(name: str, value: Any) -> int:
    """A number of CPU threads."""
    threads = NATURAL(name, value)
    require(threads <= MOST, name, value, f"at most {MOST:,}")
    return threads


def folder_name(name: str, *kinds: str) -> Path:
    """A folder for the results of one kind of run, so that a quick look does not meet a long run.

    Args:
        name: of the recipe.
        kinds: what differs from its defaults, such as the mode; empty texts are left out.
    """
    return Path("out") / "_".join([name, *filter(None, kinds)])


def make_folder(out: str | os.PathLike[str]) -> Path:
    """Make the folder of the results before any work is done.

    Raises:
        ValueError: nothing can be written there.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        check_writable(folder / "summary.json")
    except OSError as error:
        raise ValueError(f"out is {str(folder)!r}, a folder that cannot be written: {error.strerror}") from error
    return folder


def generated_events(generator: Callable[..., EventSample], n: int, seed: int) -> EventSample:
    """Events of Pythia.

    Raises:
        ImportError: it is not installed; the text says what else to give.
    """
    try:
        return generator(n, seed=1 + seed)
    except ImportError as missing:
        raise ImportError(f"{missing}\nOr give events of your own (--events FILE), or --quick.") from missing


def held_out(sample: EventSample, seed: int) -> tuple[EventSample, EventSample]:
    """A fifth of the events at random, to compare with, and the others, to learn from."""
    order = np.random.default_rng(seed).permutation(len(sample))
    truth, learned = np.split(order, [round(HELD_OUT * len(sample))])
    return sample[truth], sample[learned]


def fitted(
    backend: Any,
    model: BayesianFlow,
    events: EventSample | torch.Tensor,
    source: str | os.PathLike[str] | None = None,
    context: EventSample | None = None,
) -> Posterior:
    """The posterior of a generator's events.

    Args:
        backend: what fits.
        model: the model.
        events: the training events.
        source: the file they are from, or the generator, for the messages.
        context: conditions of the events.

    Raises:
        ValueError: events that cannot be learned, such as masses without spread; the text names the source.
        CheckpointMismatchError: the interrupted run is of other settings.
        FileFormatError: the file of the interrupted run is damaged.
    """
    try:
        return backend.fit(model, events, context=context)
    except (CheckpointMismatchError, FileFormatError) as error:
        raise type(error)(f"{error}\nOr give another folder for the results (out).") from error
    except ValueError as error:
        raise ValueError(f"{source}: {error}" if source else str(error)) from error


def tell_about(checkpoint: Path) -> None:
    """Say how a run can be interrupted, or that one goes on."""
    if checkpoint.exists():
        print(f"going on from {checkpoint}; delete it to start afresh", flush=True)
    else:
        print(f"the run is saved in {checkpoint}: if killed, repeat the command and it goes on", flush=True)


def save_summary(out: Path, summary: dict[str, Any]) -> dict[str, Any]:
    """Write ``summary.json``, and return what it holds: numbers, texts, lists and dictionaries of Python."""
    text = json.dumps(summary, indent=1)
    write_bytes(out / "summary.json", text.encode())
    return json.loads(text)
