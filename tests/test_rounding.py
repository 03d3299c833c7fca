"""Events that rounding takes to where a network has no density: single ones are told, many are an error."""

import numpy as np
import pytest
import torch
from known import Line

import pyrogen as pg
from pyrogen.diagnostics import systematics
from pyrogen.events import Nuisance, RecoilingPair, Squash
from pyrogen.posterior import RunInfo, StoredDraws

INFO = RunInfo(names=("x",), context_names=("one", "a"), context_range=((1.0, 1.0), (-2.0, 2.0)))
CONTEXT = [1.0, 0.0]


class Edge(Line):
    """N(m, 1) without a density above a limit, where its own events are nevertheless."""

    limit = torch.inf

    def log_prob(self, x, context=None):
        return torch.where(x[..., 0] > self.limit, -torch.inf, super().log_prob(x, context))


@pytest.fixture
def posterior():
    theta = torch.zeros(1, 4, 2) + torch.linspace(-0.1, 0.1, 4)[:, None]
    return pg.Posterior(pg.BayesianFlow(Edge(2), preprocessing=None), StoredDraws(theta), None, INFO, progress=False)


@pytest.fixture
def largest(posterior):
    """The largest values of the events of a generated sample, the last one is the largest."""
    return np.sort(posterior.generate(2000, context=CONTEXT).values[:, 0])


def test_one_generated_event_without_a_density_is_told(posterior, largest, monkeypatch):
    before = posterior.generate(2000, context=CONTEXT, log_weights=True)
    monkeypatch.setattr(Edge, "limit", float(largest[-2:].mean()))
    with pytest.warns(UserWarning, match="1 of 2,000 generated events have no density .*uncertainty is given as 0"):
        found = posterior.generate(2000, context=CONTEXT, log_weights=True)
    assert np.array_equal(found.values, before.values)
    lost = int(found.values[:, 0].argmax())
    assert found.uncertainties[lost] == 0 and (found.log_weights[lost] == 0).all()
    others = np.arange(2000) != lost
    assert np.array_equal(found.log_weights[others], before.log_weights[others])


def test_many_are_an_error(posterior, largest, monkeypatch):
    monkeypatch.setattr(Edge, "limit", float(largest[-4:-2].mean()))
    with pytest.raises(ValueError, match="3 of 2,000 generated events have no density"):
        posterior.generate(2000, context=CONTEXT)


def test_shifts_of_a_nuisance_parameter(posterior, monkeypatch):
    """The weights of one event cannot be known; the other events have theirs."""
    a = Nuisance("a", None, -2.0, 2.0, sigma=0.5)
    options = {"observables": {"x": ("x", 4, (-2, 2))}, "nuisances": a, "context": [1.0], "n": 500, "draws": 4}
    before = systematics(posterior, **options)["x"]
    values = np.concatenate(
        [
            part[1].numpy()[:, 0]
            for part in posterior.predictor.weighted_replicates(500, 4, lambda k: [np.array(CONTEXT)], 0, "systematics")
        ]
    )
    monkeypatch.setattr(Edge, "limit", float(np.sort(values)[-2:].mean()))
    with pytest.warns(UserWarning, match="1 of 2,000 generated events .*count alike under all conditions"):
        found = systematics(posterior, **options)["x"]
    assert np.array_equal(found.shift("a"), before.shift("a"))  # it is outside of the bins


def test_a_lepton_along_the_beam_in_the_rest_frame_has_a_density():
    """p(x) has a limit on the axis: that of events of eta* = 8, also for events that are rounded to float32."""
    generator = torch.Generator().manual_seed(0)
    low, high = (torch.tensor(each).double() for each in ([60.0, -2, 2, -3, 8, -3], [120.0, 2, 5, 3, 8, 3]))
    u = low + (high - low) * torch.rand(200, 6, generator=generator, dtype=torch.float64)
    cosine = Squash(0.0, 0.5)
    expected = cosine(u[:, 4:5])[1] - RecoilingPair().inverse(u)[1]
    u[:, 4] = torch.linspace(9, 25, 200, dtype=torch.float64)
    rounded = RecoilingPair().inverse(u)[0].float()
    on_axis = torch.tensor([[1.1992, -15.2809, -333.0, 1.1992, -15.2809, -2.1]])  # equal pT and azimuth
    for rows in (rounded, rounded.double(), on_axis):
        found, log_jacobian = RecoilingPair()(rows)
        assert found.isfinite().all() and log_jacobian.isfinite().all()
        if len(rows) == len(expected):
            assert torch.allclose((log_jacobian + cosine(found[:, 4:5])[1]).double(), expected, atol=2e-2)
