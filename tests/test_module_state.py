"""Flows whose modules have more state than weights: a density is a function of the event, in memory and from a file."""

import warnings

import h5py
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pyrogen as pg

EVENTS = torch.randn(60, 2, generator=torch.Generator().manual_seed(1))
SVI = pg.SVI(epochs=2, batch_size=30, progress=False)


class Net(nn.Module):
    """Events ~ N(net(1), 1), through a layer whose state is the matter of the test."""

    features = 2

    def __init__(self, layer=None, **plain):
        super().__init__()
        self.first, self.layer, self.last = nn.Linear(2, 4), layer or nn.Identity(), nn.Linear(4, 2)
        self.__dict__.update({"scale": 1.0, "shift": torch.zeros(2), "rate": 0.0, "batch": False} | plain)
        self.register_buffer("zero", torch.tensor(1.5))
        self.register_buffer("forgotten", torch.tensor([0.5]), persistent=False)

    def log_prob(self, x):
        location = self.last(self.layer(self.first(torch.ones_like(x)))) + self.shift + self.zero + self.forgotten
        location = F.dropout(location, self.rate, training=True)
        if self.batch:
            location = location + x.mean(0)
        return -0.5 * ((x - location) / self.scale).square().sum(-1)

    def sample(self, n):
        return torch.randn(n, 2)


@pytest.mark.parametrize(
    ("layer", "told"), [(nn.Dropout(0.5), r"layer \(Dropout\)"), (nn.BatchNorm1d(4), r"layer \(BatchNorm1d\)")]
)
def test_dropout_and_batch_normalisation_are_in_evaluation_mode_and_this_is_said(layer, told, tmp_path):
    with pytest.warns(UserWarning, match=f"in evaluation mode.*{told}") as found:
        model = pg.BayesianFlow(Net(layer), prior_scale=0.5)
    assert found[0].filename == __file__
    for mode in (True, False):
        posterior = SVI.fit(model.train(mode), EVENTS)
        first, again = posterior.log_prob(EVENTS, 3), posterior.log_prob(EVENTS, 3)
        assert torch.equal(first, again)
        assert torch.allclose(first[:, :1], posterior.log_prob(EVENTS[:1], 3), atol=1e-5)
    posterior.save(tmp_path / "posterior.h5")
    with pytest.warns(UserWarning, match="in evaluation mode"):
        loaded = pg.load(tmp_path / "posterior.h5", flow=Net(layer))
    assert torch.equal(loaded.log_prob(EVENTS, 3), first)
    assert layer.training  # the user's own module is left as it is
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pg.BayesianFlow(Net(layer).eval())
        pg.BayesianFlow(Net(nn.Dropout(0.0)))


def test_batch_normalisation_trains_to_the_density_that_it_predicts():
    """Both by the running averages, here mean 3 and variance 4: the layer is (h - 3) / 2."""
    layer = nn.BatchNorm1d(4, eps=1e-12).eval()
    layer.running_mean.fill_(3.0)
    layer.running_var.fill_(4.0)
    flow = Net(layer).eval()
    model = pg.BayesianFlow(flow, preprocessing=None)
    with torch.no_grad():
        hidden = (flow.first(torch.ones(1, 2)) - 3) / 2
        location = flow.last(hidden) + flow.zero + flow.forgotten
    expected = -0.5 * (EVENTS - location).square().sum(-1)
    assert torch.allclose(model.log_prob(model.initial_theta, EVENTS), expected, atol=1e-5)


def test_what_is_no_density_of_an_event_is_refused_before_training():
    with pytest.raises(ValueError, match="layer is a BatchNorm1d without running averages"):
        pg.BayesianFlow(Net(nn.BatchNorm1d(4, track_running_stats=False)).eval())
    for backend in (SVI, pg.Ensemble(steps=2, progress=False)):
        with pytest.raises(ValueError, match=r"another density at every call: log p of event \d is"):
            backend.fit(pg.BayesianFlow(Net(rate=0.3)), EVENTS)
        with pytest.raises(ValueError, match="depends on the other events of its batch"):
            backend.fit(pg.BayesianFlow(Net(batch=True)), EVENTS)
        with pytest.raises(ValueError, match="depends on the other events of its batch"):
            backend.fit_many(pg.BayesianFlow(Net(batch=True)), torch.stack([EVENTS, EVENTS]))


@pytest.mark.parametrize("other", [{"scale": 1.1}, {"shift": torch.tensor([0.0, 0.1])}])
def test_a_file_remembers_the_density_and_refuses_a_flow_with_another_one(tmp_path, other):
    """Plain attributes are in no state_dict."""
    posterior = SVI.fit(pg.BayesianFlow(Net()), EVENTS)
    posterior.save(tmp_path / "posterior.h5")
    with pytest.raises(pg.FileFormatError, match=r"posterior\.h5: probes: the flow has another density"):
        pg.load(tmp_path / "posterior.h5", flow=Net(**other))
    loaded = pg.load(tmp_path / "posterior.h5", flow=Net())
    assert torch.equal(loaded.log_prob(EVENTS, 3), posterior.log_prob(EVENTS, 3))
    loaded.save(tmp_path / "again.h5")  # which remembers as much
    with pytest.raises(pg.FileFormatError, match="another density"):
        pg.load(tmp_path / "again.h5", flow=Net(**other))


def test_single_numbers_and_buffers_that_are_not_saved_come_from_the_file(tmp_path):
    flow = Net()
    flow.zero.fill_(-2.0)
    flow.forgotten.fill_(0.25)
    posterior = SVI.fit(pg.BayesianFlow(flow), EVENTS)
    posterior.save(tmp_path / "posterior.h5")
    loaded = pg.load(tmp_path / "posterior.h5", flow=Net())
    assert torch.equal(loaded.log_prob(EVENTS, 3), posterior.log_prob(EVENTS, 3))


def test_probes_of_conditional_flows_and_many_samples_and_of_older_files(tmp_path):
    flow = pg.CouplingFlow(2, blocks=1, hidden=(4,), context=1)
    posterior = SVI.fit(pg.BayesianFlow(flow), EVENTS, context=EVENTS[:, :1])
    posterior.save(tmp_path / "conditional.h5")
    assert pg.load(tmp_path / "conditional.h5").probes.context.shape == (8, 1)
    many = SVI.fit_many(pg.BayesianFlow(pg.CouplingFlow(2, blocks=1, hidden=(4,))), torch.stack([EVENTS, -EVENTS]))
    many[1].save(tmp_path / "many.h5")
    assert pg.load(tmp_path / "many.h5").probes.events.shape == (8, 2)
    with h5py.File(tmp_path / "many.h5", "r+") as file:
        assert file["probes/log_prob"].shape == (2, 8)
        # As in a file of an earlier version, whose content has no digest.
        del file.attrs["pyrogen_digest"]
        file.attrs["pyrogen_format_version"] = 2
        file["probes/log_prob"][0, 3] += 0.1
    with pytest.raises(pg.FileFormatError, match="another density.*at training event 3"):
        pg.load(tmp_path / "many.h5")
    with h5py.File(tmp_path / "many.h5", "r+") as file:
        del file["probes"]
    assert pg.load(tmp_path / "many.h5").probes is None
