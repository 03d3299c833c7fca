"""Training and systematic uncertainties of histograms: shifts, covariances, templates, against closed forms."""

import json
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from known import Line
from matplotlib.figure import Figure
from scipy.stats import norm

import pyrogen as pg
from pyrogen.diagnostics import systematics
from pyrogen.events import Nuisance, with_nuisances
from pyrogen.plotting import plot_systematics
from pyrogen.posterior import RunInfo, StoredDraws

BINS = ("x", 6, (-1.5, 1.5))
EDGES = np.linspace(-1.5, 1.5, 7)
A = Nuisance("a", None, -2.0, 2.0, sigma=0.5)
INFO = RunInfo(names=("x",), units=("GeV",), context_names=("one", "a"), context_range=((1.0, 1.0), (-2.0, 2.0)))


def bins_of(mean):
    """Probabilities of N(mean, 1) in the bins."""
    return np.diff(norm.cdf(EDGES - mean))


def line(centre=(0.1, 0.3), width=(0.06, 0.03), draws=60, info=INFO, seed=1):
    """A posterior over (m, s) in p(x|a) = N(m + s a, 1), and its draws."""
    noise = torch.randn(1, draws, 2, generator=torch.Generator().manual_seed(seed))
    theta = torch.tensor(centre).float() + noise * torch.tensor(width)
    model = pg.BayesianFlow(Line(2), preprocessing=None)
    return pg.Posterior(model, StoredDraws(theta), None, info, progress=False), theta[0].double().numpy()


@pytest.fixture(scope="module")
def fitted():
    """What both procedures find, and the exact histograms ``[K, B]`` at a = -0.5, 0 and 0.5."""
    posterior, theta = line()
    exact = np.array([[bins_of(m + s * a) for m, s in theta] for a in (-0.5, 0.0, 0.5)])
    options = {"context": [1.0], "n": 4000, "draws": 60, "prior": True}
    return (
        {p: systematics(posterior, {"x": BINS}, A, procedure=p, **options)["x"] for p in "ab"},
        exact,
        posterior,
        theta,
    )


@pytest.mark.parametrize("procedure", ["a", "b"])
def test_shifts_are_those_of_the_truth_within_their_errors(fitted, procedure):
    found, (down, nominal, up) = fitted[0][procedure], fitted[1]
    shift = found.shifts["a"]
    expected = ((up - down) / 2).mean(0)
    assert (np.abs(shift.mean - expected) < 4 * shift.error).all()
    assert (shift.error < 0.05 * np.abs(expected).max()).all()
    for rows, exact in ((shift.up, up), (shift.down, down)):  # their noise is at most four times that of half of both
        assert (np.abs(rows.mean(0) - (exact - nominal).mean(0)) < 8 * shift.error).all()
    assert np.allclose(found.varied("a"), [down.mean(0), up.mean(0)], atol=4e-3)
    assert np.allclose(found.shift("a"), shift.mean) and shift.values == (-0.5, 0.5)


@pytest.mark.parametrize("procedure", ["a", "b"])
def test_the_noise_of_the_shifts_is_told(fitted, procedure):
    """Rows of one weight draw over many seeds: their covariance is the one that was told."""
    _, theta = fitted[2:]
    one, _ = line(theta[0], (0.0, 0.0), 150)
    found = systematics(one, {"x": BINS}, A, procedure=procedure, context=[1.0], n=500, draws=150, prior=True)["x"]
    shift, tolerance = found.shifts["a"], 5 * math.sqrt(2 / 150)
    for rows, noise in ((shift.draws, shift.noise), (found.band.draws, found.band.noise)):
        measured, scale = np.cov(rows, rowvar=False), np.sqrt(np.outer(np.diagonal(noise), np.diagonal(noise)))
        assert (np.abs(measured - noise) < tolerance * scale).all()
    independent = (found.band.noise.diagonal() * 2) / 4
    assert (shift.noise.diagonal() < independent * (0.7 if procedure == "a" else 0.12)).all()


def test_weighted_events_have_less_noise_where_shifts_are_small(fitted):
    assert (fitted[0]["b"].shifts["a"].error < 0.6 * fitted[0]["a"].shifts["a"].error).all()


@pytest.mark.parametrize("procedure", ["a", "b"])
def test_covariances(fitted, procedure):
    """Training: over the exact histograms of the same weight draws. Total: with the shift's outer product."""
    found, (down, nominal, up) = fitted[0][procedure], fitted[1]
    noise = found.band.noise.diagonal().mean()
    exact = np.cov(nominal, rowvar=False)
    assert np.abs(found.covariance("training") - exact).max() < 5 * noise * math.sqrt(2 / 60)
    shift = found.shift("a")
    assert np.allclose(found.covariance("systematic"), np.outer(shift, shift), atol=0)
    assert np.allclose(found.covariance(), found.covariance("training") + np.outer(shift, shift))
    assert np.allclose(found.sigma() ** 2, found.sigma("training") ** 2 + found.sigma("systematic") ** 2)
    correlation = found.correlation("systematic")
    assert np.allclose(np.abs(correlation), 1) and (correlation < 0).any()
    assert np.allclose(found.correlation().diagonal(), 1)
    expected = ((up - down) / 2).std(0, ddof=1)
    noise = found.shifts["a"].noise.diagonal().max()
    assert np.allclose(
        found.shifts["a"].training_sigma ** 2, expected**2, atol=5 * (noise + expected.max() ** 2) / 60**0.5
    )


@pytest.mark.parametrize("procedure", ["a", "b"])
def test_covariance_over_the_prior(fitted, procedure):
    """Against the exact one over weight draws and a ~ N(0, 0.5)."""
    prior, theta = fitted[0][procedure].prior, fitted[3]
    a = 0.5 * norm.ppf((np.arange(50) + 0.5) / 50)
    exact = np.array([[bins_of(m + s * value) for value in a] for m, s in theta])
    assert prior.values.shape == (60, 1) and prior.values.std() == pytest.approx(0.5, rel=0.05)
    for covariance, expected in (
        (prior.systematic(), exact.mean(0).var(0)),
        (prior.total(), exact.reshape(-1, 6).var(0)),
    ):
        assert np.allclose(np.sqrt(covariance.diagonal()), np.sqrt(expected), rtol=5 * math.sqrt(0.5 / 60), atol=1e-3)


def test_the_nominal_histogram_is_that_of_the_posterior(fitted):
    found, posterior = fitted[0], fitted[2]
    band = posterior.histogram("x", EDGES, n=4000, draws=60, context=[1.0, 0.0])
    for each in found.values():
        assert np.array_equal(each.band.draws, band.draws) and np.array_equal(each.band.noise, band.noise)
        assert (each.band.label, each.band.unit) == ("x", "GeV")


def test_two_parameters_by_name_among_other_conditions():
    """p(x|a, b, c) = N(a + 2 b + 3 c, 1), the columns in another order than the parameters."""
    theta = torch.tensor([1.0, 3.0, 2.0]) + torch.zeros(1, 5, 3)
    info = RunInfo(names=("x",), context_names=("a", "c", "b"))
    posterior = pg.Posterior(
        pg.BayesianFlow(Line(3), preprocessing=None), StoredDraws(theta), None, info, progress=False
    )
    b = Nuisance("b", None, 0.0, 1.0, sigma=0.2)
    c = np.sort(np.random.default_rng(1).normal(0, 1 / 3, 20_000))  # sorted: its parts differ
    found = systematics(posterior, {"x": BINS}, [b, A], n=20_000, context={"c": c})["x"]
    spread = math.sqrt(2)

    def exact(mean):
        return np.diff(norm.cdf((EDGES - mean) / spread))

    assert np.allclose(found.shift("b"), exact(0.4) - exact(0), atol=0.01) and found.shifts["b"].values == (None, 0.2)
    assert np.allclose(found.shift("a"), (exact(0.5) - exact(-0.5)) / 2, atol=0.01)
    down, up = found.varied("b")
    assert np.allclose(down, 2 * found.nominal - up)  # mirrored
    shifts = [found.shift(name) for name in ("a", "b")]
    assert np.allclose(found.covariance("systematic"), sum(np.outer(each, each) for each in shifts))


def test_rates_go_into_yields():
    posterior, _ = line(draws=10)
    sample = with_nuisances(
        np.random.default_rng(1).normal(size=(2000, 1)),
        Nuisance("a", lambda x, a: torch.exp(a * x[:, 0]), -2.0, 2.0, sigma=0.5),
    )
    options = {"context": [1.0], "n": 1000, "draws": 10}
    plain = systematics(posterior, {"x": BINS}, A, **options)["x"]
    found = systematics(posterior, {"x": BINS}, A, rate=sample.rate, **options)["x"]
    low, high = found.shifts["a"].rates
    assert (low, high) == (sample.rate(a=-0.5), sample.rate(a=0.5)) and 1.05 < high.value < 1.2
    (down, up), (its_down, its_up) = plain.varied("a"), found.varied("a", rate=True)
    assert np.allclose(its_down, low.value * down) and np.allclose(its_up, high.value * up)
    assert np.array_equal(found.covariance(), plain.covariance())
    shift = (its_up - its_down) / 2
    assert np.allclose(found.covariance("systematic", rate=True), np.outer(shift, shift))
    with pytest.raises(ValueError, match="the rate of a is not known"):
        plain.covariance(rate=True)


def test_the_rate_of_a_one_sided_parameter_falls_on_the_side_without_events():
    """A fit that goes below the nominal value must find fewer events there, not as many as above it."""
    posterior, _ = line(draws=10)
    tilt = Nuisance("a", lambda x, a: 1 + a * x[:, 0] ** 2, 0.0, 1.0, sigma=0.5)
    sample = with_nuisances(np.random.default_rng(1).normal(size=(2000, 1)), tilt)
    options = {"context": [1.0], "n": 1000, "draws": 10, "rate": sample.rate}
    templates = systematics(posterior, {"x": BINS}, tilt, **options)["x"].templates()
    down, up = templates.rates["a"]
    assert up == sample.rate(a=0.5).value > 1.4 and down == pytest.approx(1 / up)
    norms = [each["data"] for each in templates.modifiers() if each["type"] == "normsys"]
    assert norms == [{"hi": up, "lo": down}]


def test_total_covers_the_truth():
    """Closed-form posteriors of 40 samples; the truth is at a value of a of its own, drawn from the prior."""
    pulls, rng = [], np.random.default_rng(5)
    tilt = Nuisance("a", lambda x, a: torch.exp(a * x[:, 0]), -1.0, 1.0, sigma=0.1)
    for seed in range(40):
        sample = with_nuisances(rng.normal(size=(100, 1)), tilt, copies=4, seed=seed)
        w = pg.bayes.normalise_weights(torch.tensor(sample.sample.weights)).numpy() / sample.kl_weight
        c = np.column_stack([np.ones(len(w)), sample.context.values[:, 0]])
        covariance = np.linalg.inv((c * w[:, None]).T @ c)
        mean = covariance @ (c * w[:, None]).T @ sample.sample.values[:, 0]
        root = np.linalg.cholesky(covariance)
        posterior, _ = line(mean, (0.0, 0.0))
        noise = torch.randn(1, 16, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        weights = StoredDraws((torch.tensor(mean) + noise @ torch.tensor(root).T).float())
        posterior = pg.Posterior(posterior.model, weights, None, INFO, progress=False)
        found = systematics(posterior, {"x": BINS}, tilt, context=[1.0], n=4000, draws=16)["x"]
        difference = (found.nominal - bins_of(rng.normal(0, 0.1)))[[0, -1]]  # the two bins deviate together
        pulls.append([difference / found.sigma(part)[[0, -1]] for part in ("total", "training", "systematic")])
    total, training, systematic = np.mean(np.abs(pulls) < 1, axis=(0, 2))
    assert abs(total - 0.683) < 3 * math.sqrt(0.683 * 0.317 / 40)
    assert training < total and systematic < total


def test_events_that_cannot_be_weighted_are_told():
    apart, _ = line((0.0, 4.0), (0.0, 0.0), 4)
    far = Nuisance("a", None, -2.0, 2.0, sigma=1.5)
    options = {"context": [1.0], "n": 2000, "draws": 4}
    with pytest.warns(UserWarning, match=r"weighted to the conditions \(1, -?1.5\) have a mean weight .*procedure='a'"):
        systematics(apart, {"x": BINS}, far, procedure="b", **options)
    found = systematics(apart, {"x": BINS}, far, procedure="a", **options)["x"]
    assert np.allclose(found.shift("a"), (bins_of(6) - bins_of(-6)) / 2, atol=1e-3)


@pytest.mark.parametrize(
    ("nuisance", "given", "message"),
    [
        (Nuisance("b", None, -1.0, 1.0), {}, "nuisances is 'b'; it must be a condition of the posterior: one, a"),
        (
            Nuisance("a", None, -4.0, 4.0, sigma=3.0),
            {},
            r"a = 3 is outside of the range of the training, -2.08 to 2.08",
        ),
        (Nuisance("a", None, 0.0, 4.0, nominal=3.0), {}, "a = 3 is outside of the range of the training, 0 to 2.08"),
        (A, {"context": None}, r"the flow is conditional on 1 number per event"),
        (A, {"context": np.ones(7)}, "context"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(nuisance, given, message):
    posterior, _ = line(draws=4)
    with pytest.raises(ValueError, match=message):
        systematics(posterior, {"x": BINS}, nuisance, **{"context": [1.0], "n": 20} | given)


def test_a_flow_without_conditions_is_refused():
    model = pg.BayesianFlow(pg.CouplingFlow(1, blocks=1, hidden=(4,), transform="rqs"), preprocessing=None)
    posterior = pg.Posterior(model, StoredDraws(model.initial_theta + torch.zeros(1, 3, 1)), progress=False)
    with pytest.raises(
        ValueError, match="nuisances is 'a'; it must be a condition of the posterior: its flow has none"
    ):
        systematics(posterior, {"x": (0, 3, (0, 1))}, A, n=20)


def test_a_prior_that_is_wider_than_the_training_is_named():
    posterior, _ = line(draws=20)
    wide = Nuisance("a", None, -3.0, 3.0, sigma=2.0)
    with pytest.warns(
        UserWarning, match=r"29.8% of the prior of a \(0 \+- 2\) lie outside of the range .* -2.08 to 2.08"
    ):
        found = systematics(posterior, {"x": BINS}, wide, context=[1.0], n=200, draws=20, prior=True)["x"]
    assert np.abs(found.prior.values).max() <= 2.08


def test_predictions_beyond_the_range_of_the_training_warn_by_name():
    posterior, _ = line(draws=4)
    with pytest.warns(
        UserWarning, match=r"a is 3, outside of the range of the training, -2 to 2, as are 100.0% of the"
    ):
        posterior.sample(10, context=[1.0, 3.0])
    with pytest.warns(UserWarning, match=r"one is 0.5, outside of the range of the training, 1 to 1, as are 25.0% of"):
        posterior.log_prob(np.zeros((4, 1)), context=np.column_stack([[1, 0.5, 1, 1], np.zeros(4)]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        posterior.histogram("x", EDGES, n=10, context=[1.0, 2.05])


# Templates


@pytest.fixture(scope="module")
def small():
    """A shift that is nearly linear in a, and a training uncertainty of the same size."""
    posterior, _ = line((0.0, 0.3), (0.01, 0.01), 40)
    nuisance = Nuisance("a", None, -2.0, 2.0, sigma=0.1)
    return systematics(posterior, {"x": BINS}, nuisance, context=[1.0], n=50_000, draws=40)["x"]


@pytest.fixture(scope="module")
def templates(small):
    return small.templates(total=20_000, fraction=1.0, name="flow")


def gaussian(modifiers, nominal, observed):
    """Value and error of the parameter a of ``nominal + sum_i alpha_i shift_i``, from the modifiers alone."""
    shifts = {
        each["name"]: (np.array(each["data"]["hi_data"]) - np.array(each["data"]["lo_data"])) / 2
        for each in modifiers
        if each["type"] == "histosys"
    }
    rest = next((np.array(each["data"]) for each in modifiers if each["type"] == "staterror"), 0 * nominal)
    matrix = np.array(list(shifts.values()))
    inverse = np.linalg.inv(np.diag(observed + rest**2))
    covariance = np.linalg.inv(np.eye(len(shifts)) + matrix @ inverse @ matrix.T)
    place = list(shifts).index("a")
    return (
        (covariance @ matrix @ inverse @ (observed - nominal))[place],
        math.sqrt(covariance[place, place]),
        matrix,
        rest,
    )


def test_modifiers_have_the_total_covariance(small, templates):
    modifiers = json.loads(json.dumps(templates.modifiers()))
    _, error, matrix, rest = gaussian(modifiers, templates.nominal, templates.nominal)
    values, vectors = np.linalg.eigh(small.covariance("training"))
    training = 20_000**2 * (vectors * np.clip(values, 0, None)) @ vectors.T  # what subtracted noise left negative is 0
    shift, noise = 20_000 * small.shift("a"), 20_000**2 * small.band.noise.diagonal() / 40
    assert np.allclose(matrix.T @ matrix, training + np.outer(shift, shift), atol=1e-6 * training.max())
    assert np.allclose(rest**2, noise) and np.allclose(templates.nominal, 20_000 * small.nominal)
    # The same from the covariance of the bins: a is a shift with a constraint, all else is in the covariance.
    others = training + np.diag(templates.nominal + noise)
    assert error == pytest.approx((1 + shift @ np.linalg.solve(others, shift)) ** -0.5, rel=1e-6)
    assert error > 1.2 * (1 + shift @ (shift / templates.nominal)) ** -0.5  # the training uncertainty matters


def test_specification(templates):
    spec = templates.workspace(np.ones(6), channel="pt", sample="dy", poi="strength")
    (sample,) = spec["channels"][0]["samples"]
    kinds = [(each["name"], each["type"]) for each in sample["modifiers"]]
    assert kinds[:3] == [("strength", "normfactor"), ("a", "histosys"), ("flow_0", "histosys")]
    assert kinds[-1] == ("flow_rest", "staterror") and sample["data"] == templates.nominal.tolist()
    assert spec["measurements"][0]["config"]["poi"] == "strength" and spec["observations"][0]["name"] == "pt"
    for wrong in (np.ones(5), [1, 2, 3, 4, 5, np.nan], -np.ones(6)):
        with pytest.raises(ValueError, match="observed is .*it must be 6 numbers, one for each bin"):
            templates.workspace(wrong)


@pytest.mark.parametrize("low", [0.9, -0.1])
def test_rates_are_a_normsys_of_the_same_parameter(small, low):
    rates = (pg.events.RateEstimate(low, 0.01), pg.events.RateEstimate(1.1, 0.01))
    with_rates = replace(small, shifts={"a": replace(small.shifts["a"], rates=rates)})
    made = with_rates.templates(total=100)
    if low > 0:
        assert {"name": "a", "type": "normsys", "data": {"hi": 1.1, "lo": 0.9}} in made.modifiers()
        return
    with pytest.raises(ValueError, match="the rate of a is .*two positive numbers"):
        made.modifiers()


def test_parameters_of_one_name_are_refused(small, templates):
    """A fit would take them for one parameter."""
    observed = np.ones(len(templates.nominal))
    parameter, variation = next(iter(templates.up)), templates.variations.modifiers(templates.name)[0]["name"]
    for poi in (parameter, variation):
        with pytest.raises(ValueError, match=f"poi is '{poi}'; it must be none of the other parameters"):
            templates.workspace(observed, poi=poi)
    up, down = ({f"{templates.name}_0": its[parameter]} for its in (templates.up, templates.down))
    renamed = replace(templates, up=up, down=down, rates={})
    with pytest.raises(ValueError, match=f"{templates.name}_0 would be a variation and a nuisance parameter"):
        renamed.modifiers()


def test_templates_as_histograms(templates):
    pytest.importorskip("hist", reason='needs pip install "pyrogen[lhc]"')
    found = templates.to_hist()
    assert list(found)[:3] == ["nominal", "a_down", "a_up"] and "flow_0_up" in found
    assert np.allclose(found["nominal"].values(), templates.nominal)
    assert np.allclose(found["a_up"].values(), templates.up["a"])
    assert np.allclose(found["nominal"].variances(), templates.noise**2)
    assert found["nominal"].axes[0].label == "x [GeV]" and np.allclose(found["nominal"].axes[0].edges, EDGES)


def test_a_fit_with_pyhf_finds_the_parameter(templates):
    """Asimov data at a = 0.6 sigma; value and error are those of the Gaussian with this covariance."""
    pyhf = pytest.importorskip("pyhf", reason="needs pip install pyhf")
    pyhf.set_backend("numpy", "minuit")
    observed = templates.nominal + 0.6 * (templates.up["a"] - templates.down["a"]) / 2
    workspace = pyhf.Workspace(templates.workspace(observed))
    model = workspace.model()
    fixed = model.config.suggested_fixed()
    fixed[model.config.poi_index] = True
    found = pyhf.infer.mle.fit(workspace.data(model), model, fixed_params=fixed, return_uncertainties=True)
    value, error = found[model.config.par_slice("a").start]
    expected = gaussian(templates.modifiers(), templates.nominal, observed)
    assert value == pytest.approx(expected[0], abs=0.05 * error) and error == pytest.approx(expected[1], rel=0.03)


# The figure


def test_figure(fitted):
    found = fitted[0]["b"]
    figure = plot_systematics(found, 1000 * bins_of(0.2), total=1000, truth_label="data", log=True)
    upper, lower = figure.axes
    assert upper.get_ylabel() == "density of x [1/GeV]" and lower.get_xlabel() == "x [GeV]"
    labels = upper.get_legend_handles_labels()[1]
    assert labels == ["total", "systematic", "training", r"a $\pm\sigma$", "generated", "data"]
    for axis, scale in ((upper, 1), (lower, found.band.density())):
        total = next(patch for patch in axis.patches if patch.get_label() == "total").get_data()
        assert np.allclose(total.values, (found.nominal + found.sigma()) / found.band.widths / scale)
        assert np.allclose(total.baseline, (found.nominal - found.sigma()) / found.band.widths / scale)
        up = next(patch for patch in axis.patches if patch.get_label() == r"a $\pm\sigma$").get_data()
        assert np.allclose(up.values, found.varied("a")[1] / found.band.widths / scale)
    own = Figure()
    axes = own.subplots(2, 1)
    assert plot_systematics(found, ax=axes) is own and len(axes[0].patches) == len(upper.patches)
    for wrong, error in ((axes[:1], ValueError), (axes[0], ValueError), ([1, 2], TypeError)):
        with pytest.raises(error, match="ax"):
            plot_systematics(found, ax=wrong)
    with pytest.raises(TypeError, match=r'take one of them: found\["name"\]'):
        plot_systematics({"x": found})


def test_events_with_a_varying_number_of_objects():
    """Both procedures agree on a chain of flows with random weights, whose number of objects depends on a, too."""
    flow = pg.MultiplicityFlow(1, 1, 2, blocks=2, hidden=(8,), context=1, transform="affine")
    model = pg.BayesianFlow(flow, preprocessing=None)
    generator = torch.Generator().manual_seed(2)
    centre = model.initial_theta + 0.15 * torch.randn(model.weights, generator=generator)
    theta = centre + 0.02 * torch.randn(1, 6, model.weights, generator=generator)
    posterior = pg.Posterior(model, StoredDraws(theta), progress=False)
    layout = pg.events.Multiplicity(1, 1, 2)
    second = pg.events.OfObjects(lambda x: x[:, 2], layout, least=2)
    wanted = {"number": (layout.counts, [0.5, 1.5, 2.5]), "second": (second, 4, (-2, 2)), "first": (0, 4, (-2, 2))}
    a = Nuisance("a", None, -1.0, 1.0, sigma=0.5)
    by = {p: systematics(posterior, wanted, a, n=4000, draws=6, procedure=p) for p in "ab"}
    for name in wanted:
        one, other = (by[p][name].shifts["a"] for p in "ab")
        pulls = (one.mean - other.mean) / np.hypot(one.error, other.error)
        assert np.abs(pulls).max() < 4.5, name
        assert np.abs(other.mean / other.error).max() > 10, name  # there is a shift
