"""Laplace: closed-form posteriors, exact curvatures, resumed runs, and what it names; what ensembles share with it."""

import json
import math

import numpy as np
import pytest
import torch
from baselines import EVENTS, PRIOR, WEIGHTS, Fragile, kill_at_save, location, same_bits, wedge_model
from known import Line, Location

import pyrogen as pg
from pyrogen.inference.modes import descent, laplace
from pyrogen.inference.modes.curvature import Curvature
from pyrogen.inference.run.data import TrainingData
from pyrogen.inference.run.potential import Potential
from pyrogen.posterior import LowRankPrecision


class Looping(Location):
    """A location whose log density vmap refuses: it asks for a number."""

    def log_prob(self, x):
        return super().log_prob(x) * (1.0 if self.location.detach()[0].item() < 1e9 else 0.0)


def fit_laplace(model, events, weights=None, context=None, **kwargs):
    defaults = {"steps": 50, "lr": 0.05, "dtype": torch.float64, "progress": False}
    return pg.Laplace(**defaults | kwargs).fit(model, events, weights, context)


def covariance(posterior):
    """The covariance ``[P, P]`` that a Gaussian family's parameters say."""
    a = posterior.weights.arrays
    if posterior.weights.family == "mean_field":
        return a["scale"].square().diag()
    if posterior.weights.family == "multivariate":
        return a["scale_tril"] @ a["scale_tril"].T
    shrunk = torch.eye(len(a["loc"])).to(a["loc"]) - (a["vectors"] * (1 - a["shrink"].square())) @ a["vectors"].T
    return a["scale"][:, None] * shrunk * a["scale"]


def prepared(model, events, **kwargs):
    data = TrainingData.check(model, events, kwargs.get("weights"), kwargs.get("context"), torch.float64, "cpu")
    return Potential(model.prepare(data.events, dtype=torch.float64), data)


# --- Laplace in closed form -------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighting", WEIGHTS)
@pytest.mark.parametrize("flow", [Location, Looping])
@pytest.mark.parametrize("structure", ["full", "low_rank", "diagonal", "auto"])
def test_laplace_of_a_location_is_the_closed_form_posterior(structure, flow, weighting):
    """Precision n + 1/s^2 and mean n xbar / precision, n the events' effective size, for flows vmap refuses too."""
    w = torch.ones(60).double() if WEIGHTS[weighting] is None else WEIGHTS[weighting]
    w = w * w.sum() / w.square().sum()
    precision = float(w.sum()) + 1 / PRIOR**2
    model = pg.BayesianFlow(flow(3), prior_scale=PRIOR, preprocessing=None)
    posterior = fit_laplace(model, EVENTS, WEIGHTS[weighting], structure=structure, rank=3)
    mean = ((w[:, None] * EVENTS).sum(0) / precision).numpy()
    assert posterior.weights.arrays["loc"].numpy() == pytest.approx(mean, abs=1e-3 / math.sqrt(precision))
    assert covariance(posterior).numpy() == pytest.approx(np.eye(3) / precision, rel=1e-3, abs=1e-12)
    assert posterior.info.warnings == () and posterior.info.details["negative_eigenvalues"] == 0
    assert posterior.info.effective_size == pytest.approx(float(w.sum()))
    assert posterior.info.details["effective_parameters"] == pytest.approx(3 * float(w.sum()) / precision)


@pytest.mark.parametrize("prior", [1.0, 0.2])
def test_laplace_of_a_regression_has_its_correlations(prior):
    """Covariance (X^T X / 0.25 + 1/s^2)^-1 for full and low rank; the diagonal gives 1 / diag of the precision."""
    mixing = torch.tensor([[1.0, 0.9, 0, 0], [0, 0.4, 0.3, 0], [0, 0, 1.0, -0.8], [0, 0, 0, 0.6]])
    context = torch.randn(80, 4) @ mixing
    events = (context @ torch.tensor([1.0, -1.0, 0.5, 0.0]) + 0.5 * torch.randn(80))[:, None]
    precision = (context.T @ context / 0.25 + torch.eye(4) / prior**2).double()
    expected = precision.inverse()
    assert float(expected[0, 1].abs()) > 0.5 * float((expected[0, 0] * expected[1, 1]).sqrt())
    model = pg.BayesianFlow(Line(4, width=0.5), prior_scale=prior, preprocessing=None)
    for structure in ("full", "low_rank"):
        found = covariance(fit_laplace(model, events, context=context, structure=structure, rank=4))
        assert found.numpy() == pytest.approx(expected.numpy(), rel=0.01, abs=1e-5)
    found = covariance(fit_laplace(model, events, context=context, structure="diagonal"))
    assert found.diagonal().numpy() == pytest.approx((1 / precision.diagonal()).numpy(), rel=0.01)


def test_laplace_draws_have_the_covariance():
    """A draw of each family: mean and covariance of 4,000 of them, to five standard errors."""
    torch.manual_seed(2)
    vectors = torch.linalg.qr(torch.randn(4, 2)).Q
    arrays = {"loc": torch.ones(4), "scale": torch.tensor([1.0, 0.5, 2.0, 1.0]), "vectors": vectors}
    weights = LowRankPrecision(**arrays | {"shrink": torch.tensor([0.1, 0.5])})
    draws = torch.stack(list(weights.draws(4000, seed=0)))
    precision = torch.eye(4) + vectors @ torch.diag(torch.tensor([99.0, 3.0])) @ vectors.T
    expected = arrays["scale"][:, None] * precision.inverse() * arrays["scale"]
    assert draws.mean(0).numpy() == pytest.approx(1, abs=5 * 2 / math.sqrt(4000))
    error = (expected.square() + expected.diagonal()[:, None] * expected.diagonal()).sqrt() / math.sqrt(4000)
    assert ((draws.T.cov() - expected).abs() < 5 * error).all()


def test_low_rank_keeps_the_prior_elsewhere_and_says_what_it_leaves_out():
    """Of a location in three dimensions, rank 1 finds one direction of the three that the events determine."""
    with pytest.warns(pg.SamplingWarning, match="rank 1 leaves out directions .* eigenvalue left out is 5.4"):
        posterior = fit_laplace(location(), EVENTS, structure="low_rank", rank=1)
    widths = torch.linalg.eigvalsh(covariance(posterior))
    assert widths.numpy() == pytest.approx([1 / (60 + 1 / PRIOR**2), PRIOR**2, PRIOR**2])
    assert len(posterior.info.warnings) == 1


# --- Curvature of a network -------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_hessian_agrees_with_finite_differences(wedge, weighted):
    """Of the potential's gradient, at the initial weights; and the diagonal is the matrix's."""
    weights = torch.rand(500) - 0.1 if weighted else None
    potential = prepared(wedge_model(), wedge, weights=weights)
    theta, scale = potential.model.initial_theta, potential.prior_scale
    step = 1e-5 * torch.eye(len(theta)).double()
    differences = (potential.value_and_gradient(theta + step)[1] - potential.value_and_gradient(theta - step)[1]) / 2e-5
    expected = scale * differences * scale[:, None] - torch.eye(len(theta))  # the prior's part taken away
    curvature = Curvature(potential, theta, "hessian")
    matrix = curvature.matrix()
    assert matrix.numpy() == pytest.approx(expected.numpy(), abs=1e-6 * float(expected.abs().max()))
    assert curvature.diagonal().numpy() == pytest.approx(matrix.diagonal().numpy(), abs=1e-9)


def test_fisher_is_the_sum_of_squared_gradients(wedge, monkeypatch):
    """Matrix, products and diagonal against gradients of one event after another; weights count once, in any chunks."""
    weights = torch.rand(500) - 0.1
    potential = prepared(wedge_model(), wedge, weights=weights)
    theta, scale = potential.model.initial_theta, potential.prior_scale
    leaf = theta.clone().requires_grad_()
    log_prob = potential.model.log_prob(leaf, potential.events)
    rows = torch.stack([torch.autograd.grad(one, leaf, retain_graph=True)[0] for one in log_prob]) * scale
    expected = rows.T @ (potential.weights[:, None] * rows)
    monkeypatch.setattr("pyrogen.inference.modes.curvature.DERIVATIVES_AT_ONCE", 104 * 128)  # chunks of 128 events
    curvature = Curvature(potential, theta, "fisher")
    vectors = torch.randn(5, len(theta)).double()
    tolerance = 1e-9 * float(expected.abs().max())
    assert curvature.matrix().numpy() == pytest.approx(expected.numpy(), abs=tolerance)
    assert curvature.diagonal().numpy() == pytest.approx(expected.diagonal().numpy(), abs=tolerance)
    assert curvature.products(vectors).numpy() == pytest.approx((vectors @ expected).numpy(), abs=1e2 * tolerance)


@pytest.mark.parametrize("kind", ["hessian", "fisher"])
def test_leading_eigenpairs(wedge, kind):
    potential = prepared(wedge_model(), wedge)
    curvature = Curvature(potential, potential.model.initial_theta, kind)
    exact = torch.linalg.eigvalsh(curvature.matrix()).flip(0)
    values, vectors, residuals = curvature.leading(12, torch.Generator().manual_seed(0))
    assert values[:12].numpy() == pytest.approx(exact[:12].numpy(), rel=1e-3)
    assert (vectors.T @ vectors).numpy() == pytest.approx(np.eye(12), abs=1e-10)
    assert float(residuals[0]) < 1e-4 * float(exact[0])


SHORT = {"steps": 60, "lr": 0.02, "polish": 80}


@pytest.fixture(scope="module")
def fitted(wedge, tmp_path_factory):
    """Laplace of a small flow, and the checkpoint of its maximum."""
    path = tmp_path_factory.mktemp("laplace") / "run.h5"
    return fit_laplace(wedge_model(), wedge, checkpoint=path, structure="full", **SHORT), path


def test_laplace_of_a_flow(fitted, wedge):
    """The inverse covariance is curvature plus prior, its negative eigenvalues at zero, at a stationary point."""
    posterior, _ = fitted
    info, potential = posterior.info, prepared(wedge_model(), wedge)
    theta, scale = posterior.weights.arrays["loc"], potential.prior_scale
    values, vectors = torch.linalg.eigh(Curvature(potential, theta, "hessian").matrix())
    expected = scale[:, None] * (vectors / (1 + values.clamp(min=0))) @ vectors.T * scale
    assert covariance(posterior).numpy() == pytest.approx(expected.numpy(), abs=1e-9 * float(expected.abs().max()))
    assert info.details["negative_eigenvalues"] == int((values < -1e-6).sum()) > 0
    assert posterior.history["eigenvalues"] == pytest.approx(values.flip(0).numpy(), abs=1e-6)
    assert info.details["newton_decrement"] < 0.01 and info.warnings == ()
    assert info.backend == "Laplace" and info.exact is False and info.training_events == 500
    assert posterior.history["loss"].shape == (1, 60) and posterior.history["step"][-1] == 60
    assert posterior.history["loss"][0, -1] < posterior.history["loss"][0, 0]


def test_low_rank_of_rank_p_equals_full(fitted, wedge):
    posterior = fit_laplace(wedge_model(), wedge, structure="low_rank", rank=1000, **SHORT)
    full = covariance(fitted[0])
    assert posterior.weights.family == "low_rank_precision" and posterior.info.details["rank"] == 104
    assert torch.equal(posterior.weights.arrays["loc"], fitted[0].weights.arrays["loc"])
    assert covariance(posterior).numpy() == pytest.approx(full.numpy(), abs=1e-8 * float(full.abs().max()))
    assert posterior.info.details["newton_decrement"] == pytest.approx(
        fitted[0].info.details["newton_decrement"], rel=1e-3
    )


@pytest.mark.parametrize("structure", ["full", "low_rank", "diagonal"])
def test_saved_laplace_predicts_the_same_bits(structure, wedge, tmp_path):
    posterior = fit_laplace(wedge_model(), wedge, steps=5, polish=30, structure=structure, rank=20, curvature="fisher")
    posterior.save(tmp_path / "posterior.h5")
    loaded = pg.load(tmp_path / "posterior.h5")
    assert torch.equal(loaded.log_prob(wedge[:20], draws=5), posterior.log_prob(wedge[:20], draws=5))
    assert loaded.info == posterior.info and loaded.info.details["curvature"] == "fisher"


def test_laplace_resumes_with_the_same_bits(fitted, wedge, tmp_path, monkeypatch):
    """Killed in Adam, and after the maximum was found; another run's checkpoint is refused."""
    whole, finished = fitted
    settings = SHORT | {"structure": "full", "checkpoint_seconds": 1e-9}
    kill_at_save(monkeypatch, 20)
    with pytest.raises(KeyboardInterrupt):
        fit_laplace(wedge_model(), wedge, checkpoint=tmp_path / "run.h5", **settings)
    monkeypatch.undo()
    resumed = fit_laplace(wedge_model(), wedge, checkpoint=tmp_path / "run.h5", **settings)
    assert same_bits(whole, resumed)
    monkeypatch.setattr(torch.optim, "LBFGS", None)  # the maximum is in the checkpoint: nothing to polish
    assert same_bits(whole, fit_laplace(wedge_model(), wedge, checkpoint=finished, **settings))
    with pytest.raises(pg.CheckpointMismatchError, match="settings.rank: 100 in the file, 7 in this run"):
        fit_laplace(wedge_model(), wedge, checkpoint=finished, rank=7, **settings)


# --- What Laplace warns of --------------------------------------------------------------------------------------


def test_laplace_that_has_not_arrived_says_so():
    with pytest.warns(pg.SamplingWarning, match="not at the maximum of the posterior") as caught:
        posterior = fit_laplace(location(), EVENTS, steps=1, lr=1e-3, polish=0)
    assert posterior.info.warnings == (str(caught[0].message),)
    precision = 60 + 1 / PRIOR**2
    away = EVENTS.sum(0) / precision - posterior.weights.arrays["loc"]
    assert posterior.info.details["newton_decrement"] == pytest.approx(float(away.norm()) * math.sqrt(precision))


def test_laplace_at_a_saddle_says_so():
    """Two factors whose product is the location: at zero their posterior has a saddle, and the gradient is zero."""

    class Product(Location):
        def log_prob(self, x):
            return torch.distributions.Normal(self.location.prod(), 1.0).log_prob(x).sum(-1)

    events = torch.full((50, 1), 1.0) + torch.randn(50, 1)
    model = pg.BayesianFlow(Product(2), preprocessing=None)
    model.flow.features = model._features = 1
    with pytest.warns(pg.SamplingWarning, match="at a saddle of the posterior"):
        posterior = fit_laplace(model, events, steps=1)
    assert posterior.info.details["smallest_eigenvalue"] == pytest.approx(-float(events.sum()))
    assert posterior.info.details["negative_eigenvalues"] == 1


def test_laplace_without_a_finite_potential():
    model = pg.BayesianFlow(Fragile(3), preprocessing=None)
    model.initial_theta[0] = 6
    with pytest.raises(pg.SamplingError, match="the potential after 5 steps of Adam is nan"):
        fit_laplace(model, EVENTS, steps=5)


def test_polish_keeps_the_best_where_the_line_search_meets_nan():
    """The likelihood's maximum, 8, lies where the density is NaN: the finite weights of lowest potential are kept."""
    events = EVENTS + 8
    model = pg.BayesianFlow(Fragile(3), prior_scale=10.0, preprocessing=None)
    with pytest.warns(pg.SamplingWarning, match="not at the maximum"):
        posterior = fit_laplace(model, events, steps=3)
    assert posterior.weights.arrays["loc"].isfinite().all() and posterior.weights.arrays["loc"][0] <= 5


# --- Arguments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", [pg.Ensemble, pg.Laplace])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps is 0; it must be a whole number of at least 1"),
        ({"batch_size": 2.5}, "batch_size is 2.5; it must be a whole number"),
        ({"seed": -1}, "seed is -1"),
        ({"lr": 0}, "lr is 0; it must be positive and finite"),
        ({"lr": math.nan}, "lr is nan"),
        ({"checkpoint_seconds": -1}, "checkpoint_seconds is -1"),
        ({"dtype": torch.float16}, "dtype is torch.float16; it must be torch.float32 or torch.float64"),
    ],
)
def test_bad_shared_arguments(backend, arguments, message):
    with pytest.raises(ValueError, match=message):
        backend(**arguments)


@pytest.mark.parametrize(
    ("backend", "arguments", "message"),
    [
        (pg.Ensemble, {"members": 0}, "members is 0; it must be a whole number of at least 1"),
        (pg.Ensemble, {"objective": "elbo"}, "objective is 'elbo'; it must be one of map, likelihood"),
        (pg.Laplace, {"structure": "kron"}, "structure is 'kron'; it must be one of auto, full, low_rank, diagonal"),
        (pg.Laplace, {"curvature": "ggn"}, "curvature is 'ggn'; it must be one of auto, hessian, fisher"),
        (pg.Laplace, {"rank": 0}, "rank is 0; it must be a whole number of at least 1"),
        (pg.Laplace, {"polish": -1}, "polish is -1; it must be a whole number of at least 0"),
    ],
)
def test_bad_arguments(backend, arguments, message):
    with pytest.raises(ValueError, match=message):
        backend(**arguments)


@pytest.mark.parametrize("backend", [pg.Ensemble, pg.Laplace])
def test_folder_support_and_events_are_checked_before_any_work(backend, tmp_path, monkeypatch, wedge):
    monkeypatch.setattr(descent.Adam, "advance", None)
    with pytest.raises(FileNotFoundError, match="does not exist; create it first"):
        backend(checkpoint=tmp_path / "missing" / "run.h5").fit(location(), EVENTS)
    with pytest.raises(ValueError, match="events lie outside the unit box of the flow"):
        backend().fit(wedge_model(), wedge + 1)
    with pytest.raises(ValueError, match="row 2"):
        backend().fit(location(), torch.where(torch.arange(60)[:, None] == 2, torch.nan, EVENTS))


@pytest.mark.parametrize("backend", [pg.Ensemble, pg.Laplace])
def test_settings_are_json_and_leave_out_what_decides_nothing(backend, tmp_path):
    settings = json.loads(json.dumps(backend(dtype=torch.float64, checkpoint=tmp_path / "run.h5").describe()))
    assert settings["dtype"] == "float64"
    assert not settings.keys() & {"checkpoint", "checkpoint_seconds", "progress"}


@pytest.mark.filterwarnings("ignore:training got stuck. member")
@pytest.mark.parametrize("backend", [pg.Ensemble, pg.Laplace])
def test_progress_shows_the_loss_per_event(backend, capsys):
    few = {"members": 2} if backend is pg.Ensemble else {}
    backend(steps=3, **few).fit(location(), EVENTS)
    assert "loss per event" in capsys.readouterr().err


def test_structures_and_curvatures_chosen_by_size(wedge, monkeypatch):
    """Up to so many weights the whole Hessian; beyond that the leading directions, and Fisher for the diagonal."""
    chosen = {}
    for small in (104, 103):
        monkeypatch.setattr(laplace, "SMALL", small)
        for structure in ("auto", "diagonal"):
            info = fit_laplace(wedge_model(), wedge[:50], steps=2, polish=50, structure=structure, rank=104).info
            chosen[small, structure] = info.details["structure"], info.details["curvature"]
    assert chosen == {
        (104, "auto"): ("full", "hessian"),
        (104, "diagonal"): ("diagonal", "hessian"),
        (103, "auto"): ("low_rank", "hessian"),
        (103, "diagonal"): ("diagonal", "fisher"),
    }
