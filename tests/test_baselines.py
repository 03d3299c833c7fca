"""Deep ensembles and Laplace: closed-form posteriors, exact curvatures, resumed runs, and what they name."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

import pyrogen as pg
from pyrogen.inference import descent, ensemble, laplace
from pyrogen.inference.curvature import Curvature
from pyrogen.inference.data import TrainingData
from pyrogen.inference.potential import Potential
from pyrogen.inference.weights import WeightPosterior


class Location(nn.Module):
    """Events ~ N(loc, 1)."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.features = d
        self.loc = nn.Parameter(torch.zeros(d))

    def log_prob(self, x):
        return torch.distributions.Normal(self.loc, 1.0).log_prob(x).sum(-1)

    def sample(self, n):
        return self.loc + torch.randn(n, self.features)


class Regression(nn.Module):
    """Events ~ N(context @ slope, 0.5^2): a posterior whose correlations are those of the conditions."""

    features, context = 1, 4

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(4))

    def log_prob(self, x, context):
        return torch.distributions.Normal(context @ self.slope, 0.5).log_prob(x[:, 0])

    def sample(self, n, context):
        return (context @ self.slope + 0.5 * torch.randn(n))[:, None]


class Looping(Location):
    """A location whose log density vmap refuses: it asks for a number."""

    def log_prob(self, x):
        return super().log_prob(x) * (1.0 if self.loc.detach()[0].item() < 1e9 else 0.0)


class Fragile(Location):
    """A location whose density is NaN beyond 5."""

    def log_prob(self, x):
        return super().log_prob(x) + torch.where(self.loc[0] > 5, torch.nan, 0.0)


PRIOR = 0.3
EVENTS = torch.randn(60, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + torch.arange(3.0)
WEIGHTS = {
    "none": None,
    "signed": 1.5 * torch.rand(60, generator=torch.Generator().manual_seed(4), dtype=torch.float64) - 0.2,
}


def location(d=3, **kwargs):
    return pg.BayesianFlow(Location(d), **{"prior_scale": PRIOR, "preprocessing": None} | kwargs)


def wedge_model():
    flow = pg.CouplingFlow(2, 2, (8,), transform="bernstein", base="uniform", bins=4, activation="tanh", seed=1)
    return pg.BayesianFlow(flow, prior_scale="fan-in")


@pytest.fixture(scope="module")
def wedge():
    torch.manual_seed(1)
    return pg.targets.Wedge().sample((500,))


def fit_laplace(model, events, weights=None, context=None, **kwargs):
    defaults = {"steps": 50, "lr": 0.05, "dtype": torch.float64, "progress": False}
    return pg.Laplace(**defaults | kwargs).fit(model, events, weights, context)


def fit_ensemble(model, events, weights=None, **kwargs):
    defaults = {"members": 3, "steps": 300, "lr": 0.05, "batch_size": 10_000, "progress": False}
    return pg.Ensemble(**defaults | kwargs).fit(model, events, weights)


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
    assert posterior.info["warnings"] == [] and posterior.info["negative_eigenvalues"] == 0
    assert posterior.info["effective_size"] == pytest.approx(float(w.sum()))
    assert posterior.info["effective_parameters"] == pytest.approx(3 * float(w.sum()) / precision)


@pytest.mark.parametrize("prior", [1.0, 0.2])
def test_laplace_of_a_regression_has_its_correlations(prior):
    """Covariance (X^T X / 0.25 + 1/s^2)^-1 for full and low rank; the diagonal gives 1 / diag of the precision."""
    mixing = torch.tensor([[1.0, 0.9, 0, 0], [0, 0.4, 0.3, 0], [0, 0, 1.0, -0.8], [0, 0, 0, 0.6]])
    context = torch.randn(80, 4) @ mixing
    events = (context @ torch.tensor([1.0, -1.0, 0.5, 0.0]) + 0.5 * torch.randn(80))[:, None]
    precision = (context.T @ context / 0.25 + torch.eye(4) / prior**2).double()
    expected = precision.inverse()
    assert float(expected[0, 1].abs()) > 0.5 * float((expected[0, 0] * expected[1, 1]).sqrt())
    model = pg.BayesianFlow(Regression(), prior_scale=prior, preprocessing=None)
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
    weights = WeightPosterior("low_rank_precision", arrays | {"shrink": torch.tensor([0.1, 0.5])})
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
    assert len(posterior.info["warnings"]) == 1


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
    monkeypatch.setattr("pyrogen.inference.curvature.NUMBERS", 104 * 128)  # chunks of 128 events
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
    assert info["negative_eigenvalues"] == int((values < -1e-6).sum()) > 0
    assert posterior.history["eigenvalues"] == pytest.approx(values.flip(0).numpy(), abs=1e-6)
    assert info["newton_decrement"] < 0.01 and info["warnings"] == []
    assert info["backend"] == "Laplace" and info["exact"] is False and info["training_events"] == 500
    assert posterior.history["loss"].shape == (1, 60) and posterior.history["step"][-1] == 60
    assert posterior.history["loss"][0, -1] < posterior.history["loss"][0, 0]


def test_low_rank_of_rank_p_equals_full(fitted, wedge):
    posterior = fit_laplace(wedge_model(), wedge, structure="low_rank", rank=1000, **SHORT)
    full = covariance(fitted[0])
    assert posterior.weights.family == "low_rank_precision" and posterior.info["rank"] == 104
    assert torch.equal(posterior.weights.arrays["loc"], fitted[0].weights.arrays["loc"])
    assert covariance(posterior).numpy() == pytest.approx(full.numpy(), abs=1e-8 * float(full.abs().max()))
    assert posterior.info["newton_decrement"] == pytest.approx(fitted[0].info["newton_decrement"], rel=1e-3)


@pytest.mark.parametrize("structure", ["full", "low_rank", "diagonal"])
def test_saved_laplace_predicts_the_same_bits(structure, wedge, tmp_path):
    posterior = fit_laplace(wedge_model(), wedge, steps=5, polish=30, structure=structure, rank=20, curvature="fisher")
    posterior.save(tmp_path / "posterior.h5")
    loaded = pg.load(tmp_path / "posterior.h5")
    assert torch.equal(loaded.log_prob(wedge[:20], draws=5), posterior.log_prob(wedge[:20], draws=5))
    assert loaded.info == posterior.info and loaded.info["curvature"] == "fisher"


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


def kill_at_save(monkeypatch, moment):
    saves, save = [], descent.save_checkpoint

    def killed(*arguments):
        saves.append(1)
        save(*arguments)
        if len(saves) == moment:
            raise KeyboardInterrupt

    monkeypatch.setattr(descent, "save_checkpoint", killed)


def same_bits(a, b):
    """Weights and curve the same; times aside."""
    arrays = (torch.equal(a.weights.arrays[name], b.weights.arrays[name]) for name in a.weights.arrays)
    curves = (np.array_equal(a.history[name], b.history[name], equal_nan=True) for name in a.history)
    return all(arrays) and all(curves) and a.info | {"seconds": 0} == b.info | {"seconds": 0}


# --- What Laplace warns of --------------------------------------------------------------------------------------


def test_laplace_that_has_not_arrived_says_so():
    with pytest.warns(pg.SamplingWarning, match="not at the maximum of the posterior") as caught:
        posterior = fit_laplace(location(), EVENTS, steps=1, lr=1e-3, polish=0)
    assert posterior.info["warnings"] == [str(caught[0].message)]
    precision = 60 + 1 / PRIOR**2
    away = EVENTS.sum(0) / precision - posterior.weights.arrays["loc"]
    assert posterior.info["newton_decrement"] == pytest.approx(float(away.norm()) * math.sqrt(precision))


def test_laplace_at_a_saddle_says_so():
    """Two factors whose product is the location: at zero their posterior has a saddle, and the gradient is zero."""

    class Product(Location):
        def log_prob(self, x):
            return torch.distributions.Normal(self.loc.prod(), 1.0).log_prob(x).sum(-1)

    events = torch.full((50, 1), 1.0) + torch.randn(50, 1)
    model = pg.BayesianFlow(Product(2), preprocessing=None)
    model._flow.features = model._features = 1
    with pytest.warns(pg.SamplingWarning, match="at a saddle of the posterior"):
        posterior = fit_laplace(model, events, steps=1)
    assert posterior.info["smallest_eigenvalue"] == pytest.approx(-float(events.sum()))
    assert posterior.info["negative_eigenvalues"] == 1


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


# --- Ensembles --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighting", WEIGHTS)
@pytest.mark.parametrize("objective", ["map", "likelihood"])
def test_ensemble_of_a_location_ends_at_the_maximum(objective, weighting):
    """All members at n xbar / (n + 1/s^2), without the prior at xbar; the loss is the potential per event."""
    w = torch.ones(60).double() if WEIGHTS[weighting] is None else WEIGHTS[weighting]
    w = w * w.sum() / w.square().sum()
    n, strength = float(w.sum()), 1 / PRIOR**2 if objective == "map" else 0.0
    maximum = (w[:, None] * EVENTS).sum(0) / (n + strength)
    posterior = fit_ensemble(location(), EVENTS, WEIGHTS[weighting], objective=objective, dtype=torch.float64)
    draws = posterior.weights.arrays["draws"]
    assert draws.shape == (3, 1, 3) and not torch.equal(draws[0], draws[1])
    assert draws.numpy() == pytest.approx(maximum.expand(3, 1, 3).numpy(), abs=1e-3)
    likelihood = float((w * torch.distributions.Normal(maximum, 1.0).log_prob(EVENTS).sum(-1)).sum())
    loss = (-likelihood + 0.5 * strength * float(maximum.square().sum())) / n
    assert posterior.history["final_loss"] == pytest.approx(loss, abs=1e-5)
    assert posterior.history["loss"].shape == (3, 200)
    assert posterior.history["loss"][:, -1] == pytest.approx(loss, abs=1e-4)
    assert posterior.info["warnings"] == [] and posterior.info["exact"] is False
    assert posterior.info["gradients"] == 300 and posterior.info["settings"]["objective"] == objective


def test_ensemble_members_of_a_flow_differ_and_come_from_the_seed(wedge, tmp_path):
    settings = {"steps": 60, "lr": 0.01, "batch_size": 100}
    posterior = fit_ensemble(wedge_model(), wedge, **settings)
    assert posterior.info["gradients"] == pytest.approx(60 * 100 / 500)
    assert len({float(u) for u in posterior.history["final_loss"]}) == 3
    assert posterior.history["loss"].shape == (3, 60) and list(posterior.history["step"]) == list(range(1, 61))
    assert (posterior.history["loss"][:, -10:].mean(1) < posterior.history["loss"][:, :10].mean(1)).all()
    assert same_bits(posterior, fit_ensemble(wedge_model(), wedge, **settings))
    assert not same_bits(posterior, fit_ensemble(wedge_model(), wedge, seed=1, **settings))
    posterior.save(tmp_path / "ensemble.h5")
    loaded = pg.load(tmp_path / "ensemble.h5")
    assert torch.equal(loaded.log_prob(wedge[:20]), posterior.log_prob(wedge[:20]))
    assert posterior.log_prob(wedge[:20]).shape == (3, 20)


def test_ensemble_resumes_with_the_same_bits(wedge, tmp_path, monkeypatch):
    settings = {"steps": 40, "lr": 0.01, "batch_size": 100, "checkpoint_seconds": 1e-9}
    whole = fit_ensemble(wedge_model(), wedge, **settings)
    for moment in (1, 7, 20):
        kill_at_save(monkeypatch, moment)
        with pytest.raises(KeyboardInterrupt):
            fit_ensemble(wedge_model(), wedge, checkpoint=tmp_path / "run.h5", **settings)
        monkeypatch.undo()
    for _ in range(2):  # to the end, and from the end
        assert same_bits(whole, fit_ensemble(wedge_model(), wedge, checkpoint=tmp_path / "run.h5", **settings))
    with pytest.raises(pg.CheckpointMismatchError, match="settings.members: 3 in the file, 4 in this run"):
        fit_ensemble(wedge_model(), wedge, checkpoint=tmp_path / "run.h5", members=4, **settings)


@pytest.mark.filterwarnings("ignore:member")
def test_the_curve_has_the_mean_of_the_steps_between_its_points():
    """450 steps in 200 records of two or three: a constant rate of zero makes every mean the potential itself."""
    posterior = fit_ensemble(location(), EVENTS, steps=450, lr=1e-12)
    steps = posterior.history["step"]
    assert len(steps) == 200 and steps[-1] == 450 and set(np.diff(steps)) == {2, 3}
    final = np.broadcast_to(posterior.history["final_loss"][:, None], (3, 200))
    assert posterior.history["loss"] == pytest.approx(final, rel=1e-5)


def starts_at(monkeypatch, *firsts):
    starts = torch.zeros(len(firsts), 3, dtype=torch.float64)
    starts[:, 0] = torch.tensor(firsts)
    monkeypatch.setattr(ensemble, "independent_starts", lambda *_: starts)


def test_a_member_with_nan_is_named(monkeypatch):
    starts_at(monkeypatch, 0.0, 6.0, 0.0)
    with pytest.warns(pg.SamplingWarning, match=r"member 1 \(of 3\) ends with a loss of nan") as caught:
        posterior = fit_ensemble(pg.BayesianFlow(Fragile(3), preprocessing=None), EVENTS, dtype=torch.float64)
    assert posterior.info["warnings"] == [str(caught[0].message)]
    assert np.isnan(posterior.history["loss"][1]).all() and np.isfinite(posterior.history["loss"][[0, 2]]).all()
    starts_at(monkeypatch, 6.0, 6.0, 6.0)
    with pytest.raises(pg.SamplingError, match="the loss of all 3 members is NaN or infinite after 300 steps"):
        fit_ensemble(pg.BayesianFlow(Fragile(3), preprocessing=None), EVENTS, dtype=torch.float64)


def test_members_left_behind_or_with_skipped_steps_are_named():
    final = torch.tensor([1.0, 1.001, 1.002, 1.3, 0.999]).double()
    skipped = torch.tensor([0.0, 3.0, 0.0, 0.0, 0.0])
    problems = ensemble.find_problems(final, skipped)
    assert len(problems) == 2
    assert "the loss of member 1 (of 5) was NaN or infinite in 3 steps" in problems[0]
    assert (
        "member 3 (of 5) ends at a loss of 1.3000 nats per event, far above the others' median of 1.0010" in problems[1]
    )
    wide = torch.linspace(0.0, 1.0, 7).double()  # members that all differ: none of them is far
    assert ensemble.find_problems(wide, torch.zeros(7)) == []
    assert ensemble.find_problems(torch.tensor([2.0]).double(), torch.zeros(1)) == []


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


@pytest.mark.filterwarnings("ignore:member")
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
            chosen[small, structure] = info["structure"], info["curvature"]
    assert chosen == {
        (104, "auto"): ("full", "hessian"),
        (104, "diagonal"): ("diagonal", "hessian"),
        (103, "auto"): ("low_rank", "hessian"),
        (103, "diagonal"): ("diagonal", "fisher"),
    }
