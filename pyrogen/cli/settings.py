"""What a run card says besides the settings of flow and backend; every field is a key of the card and a flag."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyrogen.checks import DEVICE, SEED, SHARE, check_settings, optional, require, whole
from pyrogen.threads import MOST


@dataclass(frozen=True, kw_only=True)
class Events:
    """The events to learn.

    Args:
        file: file of events; its suffix says the format (such as .h5, .root, .lhe.gz, .npy).
        dataset: table to read, of an HDF5 or ROOT file that holds several; null is the only one.
        columns: names of the columns to learn, such as [pt, eta]; null is all.
        weights: column of the event weights; null is the column weight or weights, if there is one.
        context: names of columns that are conditions of a conditional flow. They are not learned.
    """

    file: str | None = None
    dataset: str | None = None
    columns: list[str] | None = None
    weights: str | None = None
    context: list[str] | None = None


@dataclass(frozen=True, kw_only=True)
class Model:
    """The prior of the weights, and the variables in which the flow learns.

    Args:
        prior_scale: width of the Gaussian prior of every weight, or fan-in, which is 1 over the root of the number of
            inputs of a layer; or widths by pattern of the parameter's name, such as {"*.bias": 0.1, "*": 1.0}.
        preprocessing: auto (mean 0 and width 1, or nothing for a flow on the unit box), none, the name of a bijection
            of pyrogen.events such as UnitBox, a list of them such as [Log, Standardise], or with settings such as
            [{UnitBox: {low: [0, 0], high: [1, 1]}}].
    """

    prior_scale: float | str | dict[str, float] = 1.0
    preprocessing: Any = "auto"


@dataclass(frozen=True, kw_only=True)
class Run:
    """The run itself.

    Args:
        run: folder of the run; it is made. It holds the card as run, the log, the checkpoint, the posterior, the
            figures and the summary.
        seed: seed of everything that is drawn. The same seed gives the same bits on one thread.
        threads: CPU threads.
        device: cpu, or a GPU such as cuda.
        held_out: fraction of the events that is not learned, and with which the generated events are compared.
        generate: number of events to generate into generated.h5; 0 is none.
        draws: weight draws of predictions; null is 50, or all where fewer are stored.
        compared: number of events that are generated for the comparison with the held-out events.
        log_weights: keep the weights of all draws with the generated events, for bands of any histogram later on.
    """

    run: str = "run"
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    held_out: float = 0.2
    generate: int = 0
    draws: int | None = None
    compared: int = 20_000
    log_weights: bool = False

    def __post_init__(self) -> None:
        check_settings(self, seed=SEED, threads=whole(1), device=DEVICE, held_out=SHARE, generate=whole(0))
        check_settings(self, draws=optional(whole(2)), compared=whole(100))
        require(self.threads <= MOST, "threads", self.threads, f"at most {MOST}")
        require(self.generate != 1, "generate", 1, "0, or at least 2: every event comes with an uncertainty")
        require(bool(self.run.strip()), "run", self.run, "the name of a folder")
