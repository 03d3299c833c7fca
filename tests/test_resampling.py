"""Bootstrap weights: the generator against its published numbers, moments, sums, and what is refused."""

import math

import numpy as np
import pytest
import torch

from pyrogen.inference.modes import resampling
from pyrogen.inference.modes.resampling import SCHEMES, Resampling, split_mix, uniform
from pyrogen.posterior.jackknife import sigma_and_error
from pyrogen.seeds import stream

KEYS = [stream(1, r + 1) for r in range(400)]
VARIANCE = {"dirichlet": 1 - 2 / 401, "multinomial": 1 - 1 / 400, "poisson": 1.0}  # of a weight of mean 1, N = 400


def make(scheme, weights=None, size=400, keys=KEYS):
    return Resampling(scheme, keys, size, weights, torch.float64, "cpu")


def weights_of_all(scheme, weights=None, size=400, keys=KEYS):
    """How often every event counts in every replica, ``[C, N]``."""
    places = torch.arange(size).expand(len(keys), -1)
    rows, values = make(scheme, weights, size, keys)(places)
    return torch.zeros(len(keys), size, dtype=torch.float64).scatter_add_(1, rows, values)


def test_split_mix_gives_its_published_numbers():
    """The first five numbers of the generator with seed 1234567, as Java's SplittableRandom has them."""
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    found = split_mix(torch.tensor([1234567]), torch.arange(5)[None])[0]
    assert [int(one) % (1 << 64) for one in found] == expected
    low, high = uniform(torch.tensor([0, -1])).tolist()
    assert low > 0 and high < 1


@pytest.mark.parametrize("scheme", SCHEMES)
def test_moments_of_the_weights(scheme):
    """Mean 1 for every event, variance about 1, and independent from event to event and from replica to replica."""
    found = weights_of_all(scheme)
    assert found.sum(1) == pytest.approx(np.full(400, 400.0))
    error = math.sqrt(VARIANCE[scheme] / 400)
    assert (found.mean(0) - 1).abs().max() < 5 * error
    kurtosis = 9 if scheme == "dirichlet" else 4
    assert float(found.var()) == pytest.approx(VARIANCE[scheme], abs=5 * math.sqrt(kurtosis / found.numel()) + 0.01)
    noise = (found - 1) / found.std()
    for products in (noise[:, 1:] * noise[:, :-1], noise[1:] * noise[:-1]):
        assert abs(float(products.mean())) < 5 / math.sqrt(products.numel()) + 1 / 400


def test_counts_of_the_discrete_schemes():
    for scheme in ("poisson", "multinomial"):
        found = torch.zeros(400, 400, dtype=torch.float64)
        raw = make(scheme)
        rows, counts = raw(torch.arange(400).expand(400, -1))
        found.scatter_add_(1, rows, counts / raw.factors[:, None])
        for k in range(4):
            share = math.exp(-1) / math.factorial(k)
            assert float((found.round() == k).double().mean()) == pytest.approx(
                share, abs=5 * math.sqrt(share / 160_000) + 1e-3
            )
        assert torch.allclose(found, found.round(), atol=1e-9)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_event_weights_multiply_and_keep_their_sum(scheme):
    weights = 1.5 * torch.rand(400, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 0.2
    found, plain = weights_of_all(scheme, weights), weights_of_all(scheme)
    assert found.sum(1) == pytest.approx(np.full(400, float(weights.sum())))
    ratio = found / (plain * weights)
    assert float((ratio / ratio.nanmedian(1, keepdim=True).values - 1).nan_to_num(0.0).abs().max()) < 1e-9


def test_a_weight_belongs_to_its_event_and_replica():
    """Whatever is asked for beside it: so a mini-batch sees the weights of the whole sample."""
    raw = make("dirichlet")
    rows, all_weights = raw(torch.arange(400).expand(400, -1))
    some = torch.tensor([[3, 399], [3, 0]])
    assert torch.equal(raw(some)[1], all_weights[:2].gather(1, some))
    assert not torch.equal(all_weights[0], all_weights[1]) and torch.equal(rows[0], torch.arange(400))


def test_sums_in_chunks_are_those_of_all(monkeypatch):
    whole = make("poisson").factors
    monkeypatch.setattr(resampling, "NUMBERS_AT_ONCE", 5000)
    assert torch.allclose(make("poisson").factors, whole, rtol=1e-14)


def test_weights_that_cancel_are_refused_with_their_replica():
    weights = torch.tensor([1.0, -0.9] * 20, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"\d+ of 400 bootstrap samples have no positive sum.*\(replica \d+"):
        make("dirichlet", weights, size=40)
    with pytest.raises(ValueError, match="too few events"):
        make("poisson", size=1)


def test_the_jackknife_of_sigma():
    """Against leaving out one draw after another, and sigma / sqrt(2 (K - 1)) for Gaussian draws."""
    values = torch.randn(24, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    sigma, error = sigma_and_error(values)
    others = torch.stack([torch.cat([values[:k], values[k + 1 :]]).std(0) for k in range(24)])
    assert torch.allclose(sigma, values.std(0))
    assert torch.allclose(error, (23 / 24 * (others - others.mean(0)).square().sum(0)).sqrt())
    many = torch.randn(20, 20_000, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    sigma, error = sigma_and_error(many)
    assert float(error.square().mean().sqrt()) == pytest.approx(float(sigma.std()), rel=0.1)
    with pytest.raises(ValueError, match="values holds 2 draws"):
        sigma_and_error(values[:2])
