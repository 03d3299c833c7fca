"""What the training of a GAN gives: a generator of events, without a density."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from pyrogen.adversarial.networks import Uniform, generate, masks
from pyrogen.checks import PATH, SEED, check_memory, door, whole
from pyrogen.events import EventSample
from pyrogen.files import FileFormatError, check_writable
from pyrogen.hdf5 import Kind, open_hdf5, read_json, write_array, write_hdf5, write_json
from pyrogen.posterior.info import History, RunInfo
from pyrogen.printing import Shown
from pyrogen.seeds import stream
from pyrogen.threads import chosen_threads

KIND = Kind("GAN", version=1, sealed=1)
EVENTS_AT_ONCE = 4096
NO_DENSITY = (
    "a GAN generates events and has no density, so it has no {what} either. For these, train a flow: "
    "pg.SVI(...).fit(pg.BayesianFlow(flow), events), or pg.Bootstrap, pg.HMC"
)


class NoDensityError(AttributeError):
    """A generator without a density was asked for one, or for what takes one; the text says what has it."""


class GANSampler(Shown):
    """The generator of a trained :class:`~pyrogen.GAN`: it gives events, and knows neither density nor uncertainty.

    Args:
        weights: of its network, ``[1, in, out]`` and ``[1, 1, out]`` by name.
        centre, scale: ``[d]``; an event is ``centre + scale * output``.
        history: the training curve, one array per quantity.
        info: how it came about; ``info.details["coverage"]`` is the fraction of training events with a generated event
            nearer than their fifth neighbour (0.97 for a perfect generator).

    Attributes:
        history, info: as given.
    """

    def __init__(
        self, weights: Mapping[str, Tensor], centre: Tensor, scale: Tensor, history: History, info: RunInfo
    ) -> None:
        self._weights = dict(weights)
        self._centre, self._scale = centre, scale
        self.history, self.info = history, info

    def __repr__(self) -> str:
        events = f"{self.info.training_events:,}"
        return f"GANSampler({self.features} features, trained on {events} events; it has no density)"

    @property
    def features(self) -> int:
        """Number of columns d."""
        return len(self._centre)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, as the training events had them; ``x0, x1, ...`` where they had none."""
        return self.info.names or tuple(f"x{i}" for i in range(self.features))

    @property
    def units(self) -> tuple[str, ...]:
        """Units of the columns; ``""`` each where the training events had none."""
        return self.info.units or ("",) * self.features

    @door(n=whole(1), seed=SEED)
    @chosen_threads()
    def sample(self, n: int, *, seed: int = 0) -> Tensor:
        """Generated events.

        Args:
            n: number of events.
            seed: seeds them; the first events of a larger sample are those of a smaller one.

        Returns:
            ``[n, d]`` in float64, in the units of the training events.
        """
        check_memory("n", n, 8.0 * n * self.features, "generate in several calls, with another seed each")
        return self._centre + self._scale * self._scaled(n, stream(seed, "gan", "sample")).double()

    @door(n=whole(1), seed=SEED)
    def generate(self, n: int, *, seed: int = 0) -> EventSample:
        """Generated events with the column names and units of the training, and without uncertainties.

        Args:
            n: number of events.
            seed: seeds them; the events are those of :meth:`sample`.

        Returns:
            An :class:`~pyrogen.EventSample`; its provenance tells of the training.
        """
        return EventSample(
            self.sample(n, seed=seed),
            names=self.names,
            units=self.units,
            provenance={
                "generator": "pyrogen GAN",
                "backend": self.info.backend,
                "seed": seed,
                "training_data_sha256": self.info.data_sha256,
                "density": "none: a GAN gives no uncertainty",
            },
        )

    @door(path=PATH)
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an HDF5 file, which :meth:`load` reads.

        Raises:
            OSError: it cannot be written; an old file is untouched.
        """
        check_writable(path)

        def fill(file: Any) -> None:
            write_json(file, "info", self.info.to_json())
            for name, value in {"centre": self._centre, "scale": self._scale}.items():
                write_array(file, name, value.numpy())
            for name, value in self._weights.items():
                write_array(file, f"weights/{name}", value.numpy())
            for name, values in self.history.items():
                write_array(file, f"history/{name}", values)

        write_hdf5(path, KIND, fill)

    @classmethod
    @door(path=PATH)
    def load(cls, path: str | os.PathLike[str]) -> GANSampler:
        """Read what :meth:`save` wrote; it generates the same events, bit for bit.

        Raises:
            FileNotFoundError: no such file.
            FileFormatError: not such a file, truncated, damaged or of a newer version.
        """
        with open_hdf5(path, KIND) as file:
            try:
                weights = {name: _tensor(item) for name, item in file["weights"].items()}
                history = {name: np.asarray(item[()]) for name, item in file["history"].items()}
                info = RunInfo.from_json(read_json(file, "info"))
            except ValueError as error:
                raise FileFormatError(f"{path}: {error}") from error
            return cls(weights, _tensor(file["centre"]), _tensor(file["scale"]), history, info)

    def _scaled(self, n: int, seed: int) -> Tensor:
        """What the network gives, ``[n, d]`` in float32."""
        settings, uniform = self.info.settings, Uniform([seed])
        parts = []
        with torch.no_grad():
            for first in range(0, n, EVENTS_AT_ONCE):
                # Whole parts, so that the first events do not depend on how many follow.
                noise = uniform.symmetric(EVENTS_AT_ONCE, settings["noise"])
                dropped = masks(uniform, EVENTS_AT_ONCE, settings["hidden"], settings["dropout"])
                parts.append(generate(self._weights, noise, dropped)[0, : n - first])
        return torch.cat(parts)

    def _refuse(self, what: str) -> NoReturn:
        raise NoDensityError(NO_DENSITY.format(what=what))

    def __getattr__(self, name: str) -> Any:
        if name in DENSITIES:
            self._refuse(name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


#: What a posterior has, and a generator without a density does not.
DENSITIES = (
    "log_prob",
    "density",
    "uncertainties",
    "histogram",
    "histograms",
    "multiplicities",
    "replicates",
    "generate_to",
    "variations",
    "predictor",
    "weights",
    "worth",
)


def _tensor(dataset: Any) -> Tensor:
    return torch.from_numpy(np.asarray(dataset[()]))
