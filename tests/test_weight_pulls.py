"""Pulls of posteriors that are known in closed form: a Gaussian of two columns whose means are uncertain.

With z the deviation of both means in units of their sigma, and e the direction of x from the mean, the pull at x is
z e: the cosine of an angle that is uniform, times the length of z. So one posterior gives two numbers, and the width of
its pulls is 0.878 |z|; over many trainings the pulls are a standard Gaussian.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from known_sigma import Fixed, model
from test_mending import exact_weights

from pyrogen import EventSample
from pyrogen.diagnostics import weight_pulls
from pyrogen.events import read
from pyrogen.plotting import plot_weight_pulls

N = 2000
COLUMNS = ("a", "b")
ARCSINE = math.sin(math.pi * 0.341345)  # quantile of the cosine of a uniform angle, 34.1 % above its median
DRAWS = 400
SIGMA_ERROR = 4 / math.sqrt(2 * DRAWS)  # four errors of a sigma from so many draws


def normal(n, seed, at=(0.0, 0.0)):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 2, generator=generator, dtype=torch.float64) + torch.tensor(at)


def log_ratio(posterior, at=(0.0, 0.0)):
    """log of N(at, 1) over the density of the posterior, N(mean, 1 + s^2), of events in its columns."""
    mean, variance = posterior.weights.arrays["loc"].double(), 1 + posterior.weights.arrays["scale"][0].double() ** 2
    true = torch.tensor(at, dtype=torch.float64)
    return lambda x: (x - mean).square().sum(1) / (2 * variance) + variance.log() - (x - true).square().sum(1) / 2


def fitted(at, names=COLUMNS):
    """The posterior of a Gaussian; its mean is ``at`` standard deviations off the truth, which is zero."""
    events = normal(N, 1)
    wanted = torch.tensor(at) / math.sqrt(N + 1) * (N + 1) / N
    events += wanted - events.mean(0)
    return Fixed(scale=1.0, progress=False).fit(model(), EventSample(events, names))


def relative_sigma(distance, sigma):
    """sigma(x) / mu(x) at this distance from the mean: the mean square of N(x; theta, 1) over its squared mean."""
    two_columns = 2 * math.log1p(sigma**2) - math.log1p(2 * sigma**2)
    return np.expm1(two_columns + distance**2 * (1 / (1 + sigma**2) - 1 / (1 + 2 * sigma**2))) ** 0.5


def expected(posterior, x):
    """z e at events in the columns of the posterior, and which are far enough from the mean for it.

    Near the mean terms of second order in sigma are not small: they are z^2 sigma over the distance.
    """
    mean, sigma = posterior.weights.arrays["loc"].double().numpy(), float(posterior.weights.arrays["scale"][0])
    away = x - mean
    distance = np.linalg.norm(away, axis=1)
    return (away / distance[:, None]) @ (mean / sigma), distance > 0.5


def test_a_posterior_gives_as_many_pulls_as_it_has_directions():
    posterior = fitted((1.5, -0.8))
    generated = posterior.generate(5_000, DRAWS, log_weights=True)
    pulls = weight_pulls(exact_weights(EventSample(normal(4_000, 2), COLUMNS), generated, log_ratio(posterior)))
    z = math.hypot(1.5, 0.8)
    assert pulls.width == pytest.approx(ARCSINE * z, rel=SIGMA_ERROR)
    # Second orders in sigma, and the mean of the draws, which is off by sigma / sqrt(draws).
    close, far = expected(posterior, generated.values)
    assert np.abs(pulls.pull - close)[far].max() < SIGMA_ERROR * z + 4 / math.sqrt(DRAWS) + 0.15
    assert pulls.inside == pytest.approx(np.mean(np.abs(close) < 1), abs=0.05)


def test_over_many_trainings_the_pulls_are_a_standard_gaussian():
    samples = torch.randn(150, 4000, 2, generator=torch.Generator().manual_seed(4))
    for scale in (1.0, 3.0):
        squares, widths, z = [], [], []
        for posterior in Fixed(scale=scale, progress=False).fit_many(model(), samples):
            mean, sigma = posterior.weights.arrays["loc"].double(), float(posterior.weights.arrays["scale"][0])
            x = normal(200, 5, mean.tolist())
            relative = relative_sigma((x - mean).norm(dim=1).numpy(), sigma)
            found = exact_weights(normal(40, 6), EventSample(x, uncertainties=relative), log_ratio(posterior))
            pulls = weight_pulls(found)
            squares.append(np.mean(pulls.pull**2))
            widths.append(pulls.width)
            z.append(float(mean.norm()) / sigma)
        # The mean square of a training is an exponential variable: mean and standard deviation are one.
        assert scale**2 * np.mean(squares) == pytest.approx(1, abs=4 / math.sqrt(150))
        assert np.array(widths) == pytest.approx(ARCSINE * np.array(z), rel=0.2, abs=0.05)
        assert scale**2 * np.std(squares) > 0.6  # of single trainings it is not one at all


def test_true_events_in_another_order_of_columns_and_with_weights():
    posterior = fitted((1.5, -0.8))
    x = normal(6_000, 7, (0.4, 0.0))  # weighted back to the truth
    size = np.exp(-0.4 * x[:, 0].numpy() + 0.08)
    truth = EventSample(x.numpy()[:, ::-1], ("b", "a"), weights=size)
    generated = EventSample(normal(4_000, 8).numpy(), ("b", "a"))
    in_order = log_ratio(posterior)
    found = exact_weights(truth, generated, lambda y: in_order(y.flip(1)))
    observables = {"by name": ("a", 5, (-2.0, 2.0)), "by function": (lambda y: y[:, 0], 5, (-2.0, 2.0))}
    pulls = weight_pulls(found, posterior, sample="truth", observables=observables, n=20_000, draws=DRAWS)
    z, (close, far) = math.hypot(1.5, 0.8), expected(posterior, x.numpy())
    assert np.abs(pulls.pull - close)[far].max() < SIGMA_ERROR * z + 4 / math.sqrt(DRAWS) + 0.15
    assert pulls.inside == pytest.approx(np.average(np.abs(pulls.pull) < 1, weights=size))
    assert pulls.width == pytest.approx(ARCSINE * z, rel=SIGMA_ERROR + 0.03)
    for its in pulls.histograms.values():  # a function sees the columns of the posterior
        edges = np.linspace(-2, 2, 6)
        phi = np.array([0.5 * (1 + math.erf(edge / 2**0.5)) for edge in edges])
        assert np.abs(its.truth - np.diff(phi)).max() < 5 * its.truth_error.max()
        assert its.truth == pytest.approx(np.histogram(x[:, 0], edges, weights=size)[0] / size.sum())


def test_events_of_a_file_need_no_posterior(tmp_path):
    posterior = fitted((2.0, 1.0))
    posterior.generate_to(tmp_path / "events.h5", 20_000, draws=50, log_weights=True)
    generated = read(tmp_path / "events.h5")
    found = exact_weights(EventSample(normal(8_000, 9), COLUMNS), generated, log_ratio(posterior))
    observables = {"a": ("a", 6, (-2.0, 2.0)), "r": (lambda x: x.norm(dim=1), 5, (0.0, 3.0))}
    pulls = weight_pulls(found, observables=observables)
    with_it = weight_pulls(found, posterior, observables=observables, n=20_000, draws=50)
    assert np.array_equal(pulls.pull, with_it.pull) and list(pulls.histograms) == ["a", "r"]
    for name, its in pulls.histograms.items():
        other = with_it.histograms[name]
        assert np.array_equal(its.truth, other.truth) and np.array_equal(its.edges, other.edges)
        # The same draws; the events are others, 20,000 of each draw, or of all with weights.
        assert its.predicted == pytest.approx(other.predicted, abs=5 * math.sqrt(0.25 / 20_000))
    edges, mean = np.linspace(-2, 2, 7), float(posterior.weights.arrays["loc"][0])
    shift = np.abs(np.diff(np.exp(-((edges - mean) ** 2) / 2))) / math.sqrt(
        2 * math.pi
    )  # of a bin, per unit of the mean
    sigma = float(posterior.weights.arrays["scale"][0])
    close = pulls.histograms["a"].predicted_error[[0, 1, 4, 5]] == pytest.approx(sigma * shift[[0, 1, 4, 5]], rel=0.4)
    assert close  # four errors of a sigma from 50 draws
    log_weights_alone = EventSample(generated.values, COLUMNS, log_weights=generated.log_weights)
    again = weight_pulls(replace(found, generated=log_weights_alone))
    assert again.relative == pytest.approx(generated.uncertainties) and again.pull == pytest.approx(pulls.pull)
    with pytest.raises(ValueError, match="needed for sigma of the truth events"):
        weight_pulls(found, sample="truth")
    one = EventSample(generated.values, COLUMNS, log_weights=0 * generated.log_weights[:, :1])
    with pytest.raises(ValueError, match="needed for sigma of the generated events"):
        weight_pulls(replace(found, generated=one))


def test_the_noise_of_the_classifier_is_taken_out_in_quadrature():
    posterior, rng = fitted((1.0, 0.5)), np.random.default_rng(1)
    generated = EventSample(
        posterior.sample(20_000, 100, seed=2).double(), COLUMNS, uncertainties=np.full(20_000, 0.05)
    )
    found = exact_weights(EventSample(normal(20_000, 3), COLUMNS), generated, lambda x: 0 * x[:, 0])
    own, noise = (0.05 * width * rng.normal(size=20_000) for width in (0.9, 2.0))
    control = replace(found, log_w_truth=noise, log_w_generated=noise[::-1])
    pulls = weight_pulls(replace(found, log_w_generated=np.log1p(own + noise), control=control))
    assert pulls.floor == pytest.approx(2.0, rel=0.03)
    assert pulls.width == pytest.approx(math.hypot(2.0, 0.9), rel=0.03)
    assert pulls.own_width == pytest.approx(0.9, rel=0.2) and "without it 0." in pulls.text()
    pulls = replace(pulls, floor=5.0)
    assert pulls.own_width == 0 and "they say nothing of sigma" in pulls.text()
    pulls = replace(pulls, floor=math.nan)
    assert math.isnan(pulls.own_width) and "not known, without a control" in pulls.text()


def test_figure_of_several():
    rng = np.random.default_rng(0)
    posterior = fitted((1.0, 0.5))
    generated = posterior.generate(2_000, 50, log_weights=True)
    found = exact_weights(EventSample(normal(2_000, 3), COLUMNS), generated, log_ratio(posterior))
    one = weight_pulls(found, observables={"a": ("a", 6, (-2.0, 2.0)), "b": ("b", 4, (-2.0, 2.0))})
    two = replace(one, pull=rng.normal(size=2_000), floor=0.4, histograms={"b": one.histograms["b"]})
    figure = plot_weight_pulls({"narrow": one, "right": two}, title="a title")
    pulls, sigma, bins = figure.axes
    labels = [text.get_text() for text in pulls.get_legend().get_texts()]
    assert labels == [f"narrow: width {one.width:.2f}", f"right: width {two.width:.2f} (noise 0.40)", "N(0, 1)"]
    assert [text.get_text() for text in sigma.get_legend().get_texts()] == ["narrow", "right"]
    assert [text.get_text() for text in bins.get_yticklabels()] == ["a", "b"]
    assert list(bins.get_yticks()) == [0, 1.5]
    rows = [line for line in bins.lines if len(line.get_xdata()) in (6, 4)]
    assert rows[0].get_xdata() == pytest.approx(np.clip(one.histograms["a"].pull, -4, 4))
    with pytest.raises(ValueError, match="at least one WeightPulls by name"):
        plot_weight_pulls({})
    with pytest.raises(TypeError, match=r"pulls\['x'\] is a ClassifierWeights.*give weight_pulls"):
        plot_weight_pulls({"x": found})
