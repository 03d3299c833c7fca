"""The bijections between the events' units and the network's: inverse, log-Jacobian, fit, configuration."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch

from pyrogen.events import Chain, EventSample, Identity, Standardise, UnitBox
from pyrogen.events.bijection import FittedConstants, from_config

SCALES = np.array([1e-3, 1.0, 5e3])
MAKERS = {
    "identity": Identity,
    "standardise": Standardise,
    "unit_box": UnitBox,
    "unit_box_given": lambda: UnitBox(low=[-0.02, -9.0, -4e4], high=[0.02, 9.0, 4e4]),
    "chain": lambda: Chain([UnitBox(), Standardise()]),
}


def make_events(n: int = 200) -> np.ndarray:
    return np.random.default_rng(7).normal([0.002, 3.0, -1e3], SCALES, size=(n, 3))


@pytest.fixture(params=MAKERS, ids=str)
def bijection(request):
    return MAKERS[request.param]().fit(make_events())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_inverse(bijection, dtype, tolerance):
    x = torch.tensor(make_events(), dtype=dtype)
    u, forward = bijection(x)
    back, inverse = bijection.inverse(u)
    assert u.dtype == back.dtype == forward.dtype == inverse.dtype == dtype
    assert forward.shape == inverse.shape == (200,)
    assert ((back - x).abs() <= tolerance * torch.tensor(SCALES)).all()
    assert torch.allclose(forward, -inverse, rtol=tolerance, atol=tolerance)


def test_log_jacobian_is_that_of_autograd(bijection):
    for x in torch.tensor(make_events(5)):
        jacobian = torch.autograd.functional.jacobian(lambda x: bijection(x)[0], x)
        torch.testing.assert_close(bijection(x)[1], torch.linalg.slogdet(jacobian)[1], rtol=0, atol=1e-12)


def test_any_leading_shape(bijection):
    x = torch.tensor(make_events(12)).reshape(3, 4, 3)
    assert bijection(x)[0].shape == (3, 4, 3) and bijection(x)[1].shape == (3, 4)
    assert bijection(x[0, 0])[1].shape == ()


def test_density_is_in_the_units_of_the_events():
    # If u is uniform on [0, 1], x is on [-3, 5]: its density is 1/8.
    _, log_jacobian = UnitBox(low=-3.0, high=5.0)(torch.zeros(1, 1, dtype=torch.float64))
    assert log_jacobian.exp().item() == pytest.approx(1 / 8, rel=1e-14)


def test_standardise_gives_mean_zero_and_deviation_one():
    values = make_events()
    u = Standardise().fit(values)(torch.tensor(values))[0].numpy()
    np.testing.assert_allclose(u.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(u.std(axis=0), 1.0, rtol=1e-12)


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_weighted_fit_has_a_known_answer(kind):
    x, w = [[0.0], [1.0], [4.0]], [1.0, 2.0, -0.5]
    # mean (0 + 2 - 2) / 2.5 = 0, variance (0 + 2 - 8) / 2.5 = -2.4
    with pytest.raises(ValueError, match=r"column 0 \(x0\) has weighted variance -2.4; negative weights"):
        Standardise().fit(kind(x), kind(w))
    fitted = Standardise().fit(kind(x), kind([1.0, 2.0, 1.0]))
    # mean (0 + 2 + 4) / 4 = 1.5, variance (2.25 + 2 * 0.25 + 6.25) / 4 = 2.25
    assert fitted.mean.tolist() == [1.5] and fitted.std.tolist() == [1.5]
    own = Standardise().fit(EventSample(x, weights=[1.0, 2.0, 1.0]))
    assert own.config() == fitted.config()
    # Negative weights that leave a positive variance, against the definition.
    x, w = np.array([[-1.0], [1.0], [2.0], [4.0]]), np.array([2.0, 2.0, -0.5, 1.0])
    mean = (w @ x) / w.sum()
    fitted = Standardise().fit(x, w)
    assert fitted.mean.item() == pytest.approx(mean.item(), rel=1e-14)
    assert fitted.std.item() == pytest.approx(np.sqrt(w @ (x - mean) ** 2 / w.sum()).item(), rel=1e-14)


def test_unit_box_margin():
    box = UnitBox(margin=0.1).fit([[0.0, -1.0], [10.0, 1.0]])
    assert box.low.tolist() == [-1.0, -1.2] and box.high.tolist() == [11.0, 1.2]
    tight = UnitBox(margin=0.0).fit([[0.1], [0.7]])
    for dtype in (torch.float32, torch.float64):
        assert tight(torch.tensor([[0.1], [0.7]], dtype=dtype))[0].tolist() == [[0.0], [1.0]]
        assert tight(torch.tensor([[0.8]], dtype=dtype))[0].item() > 1.0


def test_constant_feature():
    values = make_events()
    values[:, 1] = 0.1
    for new in (Standardise, UnitBox):
        with pytest.raises(ValueError, match=r"column 1 \(x1\) is constant, 0\.1 in every event"):
            new().fit(values)
    # Spread that only events of weight zero have is none.
    with pytest.raises(ValueError, match=r"column 0 \(x0\) is constant, 1\.0"):
        Standardise().fit([[1.0], [1.0], [2.0]], weights=[1.0, 1.0, 0.0])


def test_fit_checks_events_and_weights():
    with pytest.raises(ValueError, match="1 of 2 rows hold NaN or infinity; the first is row 1"):
        Standardise().fit([[1.0], [np.nan]])
    with pytest.raises(ValueError, match=r"weights must hold one number per event, shape \[2\]"):
        UnitBox().fit([[1.0], [2.0]], weights=[1.0])


@pytest.mark.parametrize("new", [Standardise, UnitBox, lambda: Chain([Standardise(), UnitBox()])])
def test_is_the_identity_before_the_fit(new):
    unfitted, x = new(), torch.tensor(make_events())
    assert not unfitted.fitted
    for u, log_jacobian in (unfitted(x), unfitted.inverse(x)):
        assert torch.equal(u, x) and torch.equal(log_jacobian, torch.zeros(200, dtype=torch.float64))
    assert unfitted.fit(x) is unfitted and unfitted.fitted


def test_fitted_without_a_fit():
    assert Identity().fitted and UnitBox(0.0, 1.0).fitted


def test_a_fit_replaces_the_last_one_but_not_in_a_chain():
    assert Standardise().fit([0.0, 2.0]).fit([0.0, 4.0]).mean.tolist() == [2.0]
    chain = Chain([UnitBox(0.0, 10.0), Standardise()]).fit([0.0, 4.0])
    assert chain.parts[0].high.item() == 10.0
    assert chain.parts[1].mean.tolist() == pytest.approx([0.2])


def test_config_keeps_every_bit(bijection):
    config = json.loads(json.dumps(bijection.config()))
    again = from_config(config)
    x = torch.tensor(make_events())
    assert again.config() == config == bijection.config()
    assert again.fitted and torch.equal(again(x)[0], bijection(x)[0])


def test_config_of_an_unfitted_one():
    again = from_config(Standardise().config())
    assert not again.fitted and again.fit(make_events()).fitted
    assert from_config(UnitBox(margin=0.3).config()).margin == 0.3


def test_state_dict_into_a_fresh_one(bijection, request):
    fresh = MAKERS[request.node.callspec.params["bijection"]]()
    fresh.load_state_dict(copy.deepcopy(bijection.state_dict()))
    assert fresh.fitted and fresh.config() == bijection.config()


class Scale(FittedConstants):
    """A user's bijection: its constants are set by hand, and so is the flag."""

    kind, constants, start, condition = "scale of a test", ("factor",), (1.0,), "factor is positive"

    def valid(self, factor):
        return factor > 0

    def fit(self, events, weights=None):
        self.factor = torch.tensor(events).std(0)
        self._is_fitted = torch.tensor(True)
        return self

    def forward(self, x):
        (factor,) = self._cast(x)
        return x / factor, -factor.log().sum().expand(x.shape[:-1])

    def inverse(self, u):
        (factor,) = self._cast(u)
        return u * factor, factor.log().sum().expand(u.shape[:-1])


def test_fitted_is_what_the_flag_says_however_it_was_set():
    scale = Scale()
    assert not scale.fitted and scale.fit(make_events()).fitted
    copied, changed = copy.deepcopy(scale), copy.deepcopy(scale)
    changed._is_fitted.fill_(False)  # in place, as a flow of a user's own takes up its buffers from a file
    assert copied.fitted and scale.fitted and not changed.fitted
    with torch.inference_mode():
        changed._is_fitted = torch.tensor(True)
    assert changed.fitted and changed.double().fitted


def test_moves_with_the_module():
    flow = torch.nn.Sequential(Standardise().fit(make_events()))
    assert set(flow.state_dict()) == {"0.mean", "0.std", "0._is_fitted"}
    assert not list(flow.parameters())
    assert flow.to("meta")[0].mean.device.type == "meta"


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            lambda: from_config({"kind": "whiten"}),
            "unknown preprocessing 'whiten'; known are .*chain, columns, dequantise, identity,",
        ),
        (lambda: from_config({"kind": "standardise", "fitted": True}), "'standardise' lacks 'mean'"),
        (
            lambda: from_config({"kind": "standardise", "fitted": True, "mean": [0.0], "std": [0.0]}),
            r"Standardise needs finite mean and std .*std must be positive; got \[0.0\] and \[0.0\]",
        ),
        (
            lambda: from_config({"kind": "standardise", "fitted": True, "mean": [0.0, 0.0], "std": [1.0] * 3}),
            "Standardise needs finite mean and std of one shape",
        ),
        (lambda: UnitBox(low=0.0), "give both low and high, or none of them; got low=0.0, high=None"),
        (
            lambda: UnitBox([0.0, 1.0], [1.0, 1.0]),
            r"low must be below high; got \[0.0, 1.0\] and \[1.0, 1.0\]",
        ),
        (lambda: UnitBox(0.0, np.inf), "UnitBox needs finite low and high"),
        (lambda: UnitBox(margin=-0.1), "margin is -0.1; it must be finite and not negative"),
        (
            lambda: Standardise().fit(make_events())(torch.zeros(5, 1)),
            r"Standardise was fitted to 3 features; got events of shape \[5, 1\]",
        ),
        (
            lambda: Standardise().inverse(torch.zeros(5, 1, dtype=torch.int64)),
            "Standardise needs floating-point events; got torch.int64",
        ),
    ],
)
def test_errors(act, message):
    with pytest.raises(ValueError, match=message):
        act()
