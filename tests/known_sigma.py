"""Backends whose sigma is wrong by a known factor, for the tests of calibrations."""

import functools
import math
from dataclasses import dataclass

import torch
from known import Location

import pyrogen as pg
from pyrogen.inference import Backend
from pyrogen.inference.run.checkpoint import load_checkpoint, run_identity, save_checkpoint
from pyrogen.posterior import MeanField

N = 2000
MANY = {"trainings": 60, "draws": 40}
FEW = {"trainings": 20, "draws": 20, "probes": 20}
EVENTS = torch.randn(N, 2, generator=torch.Generator().manual_seed(3)) + 0.3
LEVEL = math.erf(1 / math.sqrt(2))


@dataclass(frozen=True, kw_only=True)
class Fixed(Backend):
    """The posterior of a Location in closed form, its widths times ``scale``; with a checkpoint of its result."""

    scale: float = 3.0
    power: float = 1.0

    def widths(self):
        return self.scale

    def _fit(self, model, data):
        w = torch.ones(len(data.events)) if data.weights is None else data.weights
        effective = float(w.sum() ** 2 / w.square().sum())
        return self._of(model, data, w @ data.events / w.sum(), effective, training_events=len(w))

    def _fit_many(self, model, data):
        each = zip(data.events.mean(1), data.digests, strict=True)
        n = data.events.shape[1]
        return [
            self._of(model, data, mean, n, sample=r, samples=len(data.events), data_sha256=digest, training_events=n)
            for r, (mean, digest) in enumerate(each)
        ]

    def _of(self, model, data, mean, n, **told):
        weights = MeanField(loc=mean * n / (n + 1), scale=torch.full((2,), self.widths() / math.sqrt(n + 1)))
        if self.checkpoint is not None and not told.get("sample"):
            identity = run_identity(self.describe(), model, data)
            if load_checkpoint(self.checkpoint, identity) is None:
                save_checkpoint(self.checkpoint, identity, {}, {"mean": mean})
        return self._posterior(model, weights, {}, data, effective_size=float(n), **told)


@dataclass(frozen=True, kw_only=True)
class Tempered(Fixed):
    """The same with a knob on which the widths depend as a power; 1/2 for a posterior that the events determine."""

    kl_weight: float = 1.0
    power: float = 0.5

    def widths(self):
        return self.scale * self.kl_weight**self.power


def model(**kwargs):
    return pg.BayesianFlow(Location(2), prior_scale=1.0, preprocessing=None, **kwargs)


def backend(kind=Tempered, **settings):
    return kind(progress=False, **settings)


@functools.cache
def calibrated_once():
    """A calibrated posterior that several tests look at."""
    return pg.calibrate(backend(), model(), EVENTS, **MANY)
