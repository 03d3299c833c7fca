"""What every posterior holds: its networks, its record, where it is, and the switches of its predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from pyrogen.bayes.model import BayesianFlow
from pyrogen.checks import BOOLEAN
from pyrogen.posterior.info import History, RunInfo
from pyrogen.posterior.predictor import Predictor
from pyrogen.posterior.summary import PosteriorSummary
from pyrogen.posterior.weights import WeightPosterior
from pyrogen.printing import Shown


class Holding(Shown):
    """The parts of a posterior, all seen through its ``predictor``, which its methods make predictions with."""

    predictor: Predictor
    history: History

    @property
    def model(self) -> BayesianFlow:
        """The prepared Bayesian flow."""
        return self.predictor.model

    @property
    def weights(self) -> WeightPosterior:
        """The distribution of its weights."""
        return self.predictor.weights

    @property
    def device(self) -> torch.device:
        """Where its networks are, and where the tensors that it gives are."""
        return self.model.device

    @property
    def info(self) -> RunInfo:
        """How the posterior came about."""
        return self._info

    @info.setter
    def info(self, info: RunInfo) -> None:
        if not isinstance(info, RunInfo):
            raise TypeError(f"info is a {type(info).__name__}; it must be a pyrogen.posterior.RunInfo")
        self._info, self.predictor.trained_names = info, info.names
        self.predictor.trained_units, self.predictor.trained_context_names = info.units, info.context_names
        self.predictor.trained_context_range = info.context_range

    def summary(self) -> PosteriorSummary:
        """What one has to know of the posterior: the verdict, findings, backend, events, weights, loss, memory, time.

        ``print(posterior.summary())`` shows it as a table. Nothing is computed that takes time;
        :func:`pyrogen.diagnostics.advise` looks deeper.
        """
        return PosteriorSummary.of(self)

    def _facts(self) -> Mapping[str, Any]:
        return self.summary()._facts()

    @property
    def progress(self) -> bool:
        """The switch of the progress bars of all predictions."""
        return self.predictor.progress

    @progress.setter
    def progress(self, show: bool) -> None:
        self.predictor.progress = show

    @property
    def compile(self) -> bool:
        """Whether densities are computed by compiled code; False, until it is set to True.

        Compiling the steps of the flow takes some ten seconds on a card, at the first prediction. What it gains there,
        ``docs/performance.md`` tells; on a CPU it hardly pays. A flow that cannot be compiled is evaluated as it is:
        ``posterior.predictor.compiled.told`` says why.
        """
        return self.predictor.compiled.active

    @compile.setter
    def compile(self, wanted: bool) -> None:
        self.predictor.compile(BOOLEAN("compile", wanted))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, as the training events had them; ``x0, x1, ...`` where they had none."""
        return self.predictor.names

    @property
    def units(self) -> tuple[str, ...]:
        """Units of the columns; ``""`` each where the training events had none."""
        return self.info.units or ("",) * len(self.names)
