"""What a posterior is made of: predictor, buffers of the flow, families of weights; all of it survives its file."""

from dataclasses import replace

import pytest
import torch
from known import Location

import pyrogen as pg
from pyrogen.posterior import MeanField, WeightPosterior
from pyrogen.posterior import weights as weights_module


def location_posterior():
    weights = MeanField(loc=torch.zeros(2), scale=torch.full((2,), 0.3))
    return pg.Posterior(pg.BayesianFlow(Location(2), preprocessing=None), weights)


def test_predictor_and_posterior_cannot_disagree():
    """What is predicted and what is saved are the same: model and weights are those of the predictor."""
    posterior, other = location_posterior(), location_posterior()
    assert posterior.weights is posterior.predictor.weights and posterior.model is posterior.predictor.model
    with pytest.raises(AttributeError):
        posterior.weights = other.weights
    with pytest.raises(AttributeError):
        posterior.model = other.model
    posterior.info = replace(posterior.info, names=("u", "v"), units=("GeV", ""))
    assert posterior.names == ("u", "v") and posterior.units == ("GeV", "")
    assert posterior.generate(10, 2).names == ("u", "v")
    assert posterior.histogram("v", 2, range=(-5, 5), n=10, draws=2).draws.shape == (2, 2)
    with pytest.raises(TypeError, match="info is a dict; it must be a pyrogen.posterior.RunInfo"):
        pg.Posterior(posterior.model, posterior.weights, {}, {"backend": "SVI"})


class Shifted(Location):
    """A flow whose density depends on a buffer that its state_dict does not hold, and on a number without dimension."""

    def __init__(self, shift=0.0):
        super().__init__(2)
        self.register_buffer("shift", torch.full((2,), shift), persistent=False)
        self.register_buffer("calls", torch.tensor(0.0))

    def log_prob(self, x):
        return super().log_prob(x - self.shift - self.calls)


def test_buffers_of_a_foreign_flow_are_kept_whatever_they_are(tmp_path):
    flow = Shifted(3.0)
    flow.calls += 0.5
    weights = MeanField(loc=torch.zeros(2), scale=torch.ones(2))
    posterior = pg.Posterior(pg.BayesianFlow(flow, preprocessing=None), weights)
    posterior.save(tmp_path / "p.h5")
    x = torch.rand(4, 2)
    assert torch.equal(pg.load(tmp_path / "p.h5", flow=Shifted()).log_prob(x, 3), posterior.log_prob(x, 3))
    with pytest.raises(
        pg.FileFormatError, match=r"other buffers than the flow: \['calls', 'shift'\] in the file, \[\]"
    ):
        pg.load(tmp_path / "p.h5", flow=Location(2))


def test_tied_parameters_are_no_buffers():
    class Tied(Location):
        def __init__(self):
            super().__init__(2)
            self.again = self.location

    assert pg.BayesianFlow(Tied(), preprocessing=None).flow_buffers() == {}


def test_families_register_by_a_name_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(weights_module, "FAMILIES", dict(weights_module.FAMILIES))
    monkeypatch.setattr("pyrogen.posterior.files.FAMILIES", weights_module.FAMILIES)

    class Wide(MeanField):
        """A variant without a name."""

        def _draw(self, generator):
            return 50 * super()._draw(generator)

    assert weights_module.FAMILIES["mean_field"] is MeanField
    arrays = {"loc": torch.zeros(2), "scale": torch.ones(2)}
    posterior = pg.Posterior(pg.BayesianFlow(Location(2), preprocessing=None), Wide(**arrays))
    with pytest.raises(ValueError, match="Wide has the family 'mean_field' of another class"):
        posterior.save(tmp_path / "p.h5")
    with pytest.raises(ValueError, match="the family 'point' exists, it is pyrogen.posterior.weights.Point"):

        class Second(MeanField):
            family = "point"

    class Cauchy(WeightPosterior):
        family, names = "cauchy", ("loc", "scale")

        def _draw(self, generator):
            uniform = torch.rand(self.size, generator=generator)
            return self.arrays["loc"] + self.arrays["scale"] * torch.tan(torch.pi * (uniform - 0.5))

    posterior = pg.Posterior(posterior.model, Cauchy(**arrays))
    posterior.save(tmp_path / "c.h5")
    loaded = pg.load(tmp_path / "c.h5", flow=Location(2))
    x = torch.rand(4, 2)
    assert isinstance(loaded.weights, Cauchy) and torch.equal(loaded.log_prob(x, 3), posterior.log_prob(x, 3))
    with pytest.raises(ValueError, match="no density over the weights"):
        loaded.weights.log_prob(torch.zeros(2))
    del weights_module.FAMILIES["cauchy"]
    with pytest.raises(pg.FileFormatError, match="unknown family 'cauchy' of weight posteriors; known: mean_field"):
        pg.load(tmp_path / "c.h5", flow=Location(2))
