"""Which guide follows the ridges of the posterior? Coverage, effective parameters and cost of structured guides.

python benchmarks/guides.py                       # the flow of 496 weights of docs/calibration.md, wedge, 2,000 events
python benchmarks/guides.py --only backends --target kicker
python benchmarks/guides.py --only backends --flow spline --events 20000 --samples 3

Three parts: backends of the package; Laplace's covariance, whole and in parts, with draws of weights and with the
logarithm of the density linear in the weights; guides with covariances between weights, trained on from the
mean-field fit or, with points in the lower layers, from the maximum of the posterior. All samples train in one batch.
"""

import argparse
import math
import time
import warnings
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import pyrogen as pg
from pyrogen.bayes.last_layers import random_weights
from pyrogen.bayes.side_by_side import log_prob_side_by_side
from pyrogen.coverage.calibration import Calibration, calibration_of
from pyrogen.diagnostics import calibration_along_lines, effective_parameters
from pyrogen.diagnostics.lines import points_on_lines
from pyrogen.inference.modes.curvature import Curvature
from pyrogen.inference.run.potential import Potential
from pyrogen.posterior import LowRank
from pyrogen.recipes.backends import make_small_model

TARGETS = {"wedge": pg.targets.Wedge(), "kicker": pg.targets.Kicker(), "ring": pg.targets.GaussianRing()}
PARTS = ("backends", "laplace", "trained")
T = torch.linspace(0.01, 0.99, 41, dtype=torch.float64)
DRAWS = 100
COLUMNS = ("1 sigma", "2 sigma", "pull", "+-", "s/spread", "p_WAIC", "loss", "ms/step")
#: Of the small flow as in pyrogen/recipes/backends.py, and of a larger one.
SETTINGS = {
    "small": {"steps": 6000, "batch_size": 500, "lr": 1e-2, "lr_widths": 3e-2},
    "spline": {"steps": 3000, "batch_size": 512, "lr": 3e-3, "lr_widths": 2e-2, "widths_after": 0.4},
}
METHODS = {
    "mean field": {},
    "mean field, KL x 0.1": {"kl_weight": 0.1},
    "last layers random (pg.LastLayers)": {"guide": pg.LastLayers},
}
MORE_STEPS, LR, LR_WIDTHS, LR_COVARIANCES = 2500, 5e-3, 1e-2, 1e-3
NO_WIDTH = 1e-14  # variance of what has none, in a family that wants one


class Blocks(torch.nn.Module):
    """R Gaussians with a full covariance within blocks of weights; weights in none of them are points.

    Args:
        loc: means ``[R, P]``.
        width: widths ``[R, P]`` in units of the prior's.
        prior: ``[P]``.
        blocks: indices of the weights of each block, and whether it has covariances.
    """

    def __init__(self, loc: Tensor, width: Tensor, prior: Tensor, blocks: list[tuple[Tensor, bool]]) -> None:
        super().__init__()
        self.prior, self.blocks = prior, blocks
        self.loc = torch.nn.Parameter(loc.clone())
        self.free = torch.nn.Parameter(width + torch.log(-torch.expm1(-width)))
        self.low = torch.nn.ParameterList([torch.zeros(len(loc), len(b), len(b)) for b, full in blocks if full])

    def factors(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Indices of every block and the factor ``[R, n, n]`` (without covariances ``[R, n]``) of its covariance."""
        width, low = F.softplus(self.free), iter(self.low)
        for block, full in self.blocks:
            own = width[:, block]
            yield block, own[..., None] * (torch.eye(len(block)) + next(low).tril(-1)) if full else own

    def draw(self) -> Tensor:
        """A weight vector of each ``[R, P]``."""
        offset = torch.zeros_like(self.loc)
        for block, factor in self.factors():
            noise = torch.randn(len(offset), len(block))
            moved = factor * noise if factor.ndim == 2 else (factor @ noise[..., None])[..., 0]
            offset = offset.index_copy(1, block, moved)
        return self.loc + self.prior * offset

    def kl(self) -> Tensor:
        """From the prior, ``[R]``; of points the density of the prior alone."""
        kl = 0.5 * (self.loc / self.prior).square().sum(1)
        for block, factor in self.factors():
            kl = kl + 0.5 * (factor.square().flatten(1).sum(1) - len(block))
            kl = kl - F.softplus(self.free[:, block]).log().sum(1)
        return kl

    def factor(self, r: int) -> Tensor:
        """A factor ``[P, P]`` of the covariance of Gaussian ``r``."""
        whole = torch.zeros(2 * self.prior.shape)
        for block, factor in self.factors():
            own = factor[r].detach()
            whole[block[:, None], block] = own.diag() if own.ndim == 1 else own
        return self.prior[:, None] * whole


class Rotated(Blocks):
    """Independent widths along the axes ``axes [R, P, P]``, which are orthonormal in units of the prior's widths."""

    def __init__(self, loc: Tensor, width: Tensor, prior: Tensor, axes: Tensor) -> None:
        super().__init__(loc, width, prior, [(torch.arange(len(prior)), False)])
        self.axes = axes

    def draw(self) -> Tensor:
        offset = F.softplus(self.free) * torch.randn_like(self.loc)
        return self.loc + self.prior * (self.axes @ offset[..., None])[..., 0]

    def factor(self, r: int) -> Tensor:
        return self.prior[:, None] * self.axes[r] * F.softplus(self.free[r]).detach()


class Study:
    """Samples, a model, and a table that is printed line by line.

    Args:
        args: the command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.target, self.flow = TARGETS[args.target], args.flow
        torch.manual_seed(args.seed)
        self.events = self.target.sample((args.samples, args.events))
        self.t = torch.linspace(*self.target.line_range, 41, dtype=torch.float64) if args.target == "ring" else T
        self.mean_fields: list[pg.Posterior] = []
        self._maxima: list[pg.Posterior] = []
        print(f"{'':44s}" + "".join(f"{name:>9s}" for name in COLUMNS), flush=True)

    def model(self) -> pg.BayesianFlow:
        """The flow with its prior."""
        ring = isinstance(self.target, pg.targets.GaussianRing)
        if self.flow == "small":
            return make_small_model("default", ring)
        flow = pg.CouplingFlow(2, 4, (16, 16), "rqs", bins=8, base="normal" if ring else "uniform")
        return pg.BayesianFlow(flow, "fan-in")

    @property
    def maxima(self) -> list[pg.Posterior]:
        """Laplace's approximation on every sample."""
        if not self._maxima:
            backend = pg.Laplace(steps=4000, batch_size=500, progress=False)
            self._maxima = backend.fit_many(self.model(), self.events)
        return self._maxima

    def backends(self) -> None:
        """What the package has."""
        for name, changes in METHODS.items():
            settings = dict(SETTINGS[self.flow])
            steps = settings.pop("steps")
            epochs = math.ceil(steps / (self.events.shape[1] // settings["batch_size"]))
            fit = pg.SVI(epochs=epochs, progress=False, **settings | changes)
            found = fit.fit_many(self.model(), self.events)
            loss = np.mean([p.history["loss"][-50:].mean() for p in found])
            self.tell(name, found, float(loss) if not changes else math.nan, found[0].info.seconds / steps)
            self.mean_fields = self.mean_fields or found

    def laplace(self) -> None:
        """Laplace's covariance in parts, with draws of weights and with log p linear in them."""
        self.tell("Laplace (pg.Laplace)", self.maxima)
        model = self.maxima[0].model
        layers = blocks_of(model)
        last = torch.nonzero(random_weights(model))[:, 0]
        parts = {"all weights": [torch.arange(model.weights)], "per layer": layers, "last layers": [last]}
        curvatures = [self.curvature(r, p.weights.arrays["loc"], "hessian") for r, p in enumerate(self.maxima)]
        _, positions, points = points_on_lines(self.target, self.t, None)
        truth = self.target.line_density(self.t).double().repeat(len(positions))
        for name, blocks in parts.items():
            found, values = [], []
            for r, maximum in enumerate(self.maxima):
                loc = maximum.weights.arrays["loc"]
                factor = inverse_root(curvatures[r], blocks, model.prior_scales)
                found.append(with_factor(maximum, loc, factor))
                gradient = derivatives(model, loc, points.to(loc))
                torch.manual_seed(r)
                noise = torch.randn(DRAWS, model.weights, dtype=torch.float64)
                at = model.log_prob(loc, points.to(loc)).detach().double()
                values.append((at + noise @ (gradient @ factor).T).exp())
            self.tell(f"Laplace, {name}", found)
            self.print(f"Laplace, {name}, linear", calibration_of(torch.stack(values), truth), [math.nan] * 3)

    def trained(self) -> None:
        """Guides with covariances."""
        if not self.mean_fields:
            raise SystemExit("the guides start from the mean-field fits; leave --only out")
        model = self.mean_fields[0].model
        prior, layers = model.prior_scales, blocks_of(model)
        loc, width = (torch.stack([p.weights.arrays[key] for p in self.mean_fields]) for key in ("loc", "scale"))
        width = width / prior
        every = torch.arange(model.weights)
        self.train("mean field, trained on", Blocks(loc, width, prior, [(every, False)]))
        axes, values = self.axes(loc, layers)
        start = (0.3 / (1 + values).sqrt()).clamp(1e-3, 1)
        self.train("mean field along axes of the Fisher matrix", Rotated(loc, start, prior, axes))
        self.train("covariance per layer", Blocks(loc, width, prior, [(layer, True) for layer in layers]))
        self.train("full covariance", Blocks(loc, width, prior, [(every, True)]))
        random = random_weights(model)
        last = [(layer, True) for layer in layers if random[layer].all()]
        top = torch.stack([p.weights.arrays["loc"] for p in self.maxima])
        self.train("last layers, covariance per layer", Blocks(top, torch.full_like(top, 0.03), prior, last), False)

    def train(self, name: str, guide: Blocks, bound: bool = True) -> None:
        """Train a guide of all samples and tell about it; ``bound``: whether its loss bounds the evidence."""
        model, (samples, n, _) = self.mean_fields[0].model, self.events.shape
        batch, own = SETTINGS[self.flow]["batch_size"], torch.arange(samples)[:, None]
        groups = {"lr": [guide.loc], "lr_widths": [guide.free], "covariances": list(guide.low)}
        rates = (LR, LR_WIDTHS, LR_COVARIANCES)
        given = [{"params": its, "peak": rate} for its, rate in zip(groups.values(), rates, strict=True) if its]
        adam = torch.optim.Adam(given, lr=LR)
        torch.manual_seed(0)
        losses, started = [], time.monotonic()
        for i in range(MORE_STEPS):
            for group in adam.param_groups:
                group["lr"] = group["peak"] * 0.5 * (1 + math.cos(math.pi * i / MORE_STEPS)) * min(1, (i + 1) / 50)
            rows = torch.rand(samples, n).argsort(1)[:, :batch]
            log_prob = log_prob_side_by_side(model, guide.draw(), self.events[own, rows])
            loss = guide.kl() / n - log_prob.mean(1)
            adam.zero_grad()
            loss.sum().backward()
            adam.step()
            losses.append(float(loss.detach().mean()))
        seconds = (time.monotonic() - started) / MORE_STEPS
        found = [with_factor(p, guide.loc[r].detach(), guide.factor(r)) for r, p in enumerate(self.mean_fields)]
        self.tell(name, found, float(np.mean(losses[-200:])) if bound else math.nan, seconds)

    def axes(self, loc: Tensor, layers: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Eigenvectors ``[R, P, P]`` of the Fisher matrix within the layers, and eigenvalues ``[R, P]``."""
        axes, values = torch.zeros(*loc.shape, loc.shape[1]), torch.zeros_like(loc)
        for r, centre in enumerate(loc):
            matrix = self.curvature(r, centre, "fisher")
            for layer in layers:
                found, vectors = torch.linalg.eigh(matrix[layer[:, None], layer])
                values[r, layer] = found.clamp(min=0).to(loc)
                axes[r, layer[:, None], layer] = vectors.to(loc)
        return axes, values

    def curvature(self, r: int, loc: Tensor, kind: str) -> Tensor:
        """The curvature ``[P, P]`` of the log-likelihood of sample ``r``, in units of the prior's widths."""
        model, data = pg.Laplace().checked(self.maxima[0].model, self.events[r])
        return Curvature(Potential(model, data), loc, kind).matrix()

    def tell(
        self, name: str, posteriors: list[pg.Posterior], loss: float = math.nan, seconds: float = math.nan
    ) -> None:
        """A line of the table."""
        for posterior in posteriors:
            posterior.progress = False
        found = calibration_along_lines(posteriors, self.target, self.t, draws=DRAWS, seed=0)
        pairs = zip(posteriors, self.events, strict=True)
        p_waic = float(np.mean([effective_parameters(p, own, DRAWS, seed=0) for p, own in pairs]))
        self.print(name, found, [p_waic, loss, 1e3 * seconds])

    def print(self, name: str, found: Calibration, more: list[float]) -> None:
        """Coverage and what else is known."""
        two = found.fraction(math.erf(math.sqrt(2)))[0]
        numbers = [found.fraction()[0], two, *found.pull_width(), found.sigma_ratio()[0], *more]
        print(f"{name:44s}" + "".join(f"{'-' if math.isnan(x) else f'{x:.4g}':>9s}" for x in numbers), flush=True)


def blocks_of(model: pg.BayesianFlow) -> list[Tensor]:
    """Indices of the weights of every linear layer."""
    places: dict[str, list[Tensor]] = {}
    for name, rows in zip(model.packing.names, torch.arange(model.weights).split(model.packing.sizes), strict=True):
        places.setdefault(name.rpartition(".")[0], []).append(rows)
    return [torch.cat(rows) for rows in places.values()]


def inverse_root(curvature: Tensor, blocks: list[Tensor], prior: Tensor) -> Tensor:
    """A factor ``[P, P]`` of ``S (1 + H)^-1 S`` for the blocks of H, whose negative eigenvalues are set to zero."""
    whole = torch.zeros_like(curvature)
    for block in blocks:
        values, vectors = torch.linalg.eigh(curvature[block[:, None], block])
        whole[block[:, None], block] = vectors / (1 + values.clamp(min=0)).sqrt()
    return prior.double()[:, None] * whole


def with_factor(posterior: pg.Posterior, loc: Tensor, factor: Tensor) -> pg.Posterior:
    """A posterior with other weights: Gaussian, of covariance ``factor factor^T``."""
    weights = LowRank(loc=loc, cov_factor=factor.to(loc), cov_diag=torch.full_like(loc, NO_WIDTH))
    return pg.Posterior(posterior.model, weights, posterior.history, posterior.info, progress=False)


def derivatives(model: pg.BayesianFlow, loc: Tensor, points: Tensor) -> Tensor:
    """Derivatives ``[N, P]`` of log p at ``points [N, d]`` by the weights, in float64."""

    def one(theta: Tensor, x: Tensor) -> Tensor:
        return model.log_prob(theta, x[None])[0]

    return torch.func.vmap(torch.func.grad(one), in_dims=(None, 0))(loc, points).double()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS, help="parts of the table (all)")
    parser.add_argument("--target", choices=TARGETS, default="wedge", help="the truth (wedge)")
    parser.add_argument("--flow", choices=SETTINGS, default="small", help="496 weights (ring: 1,212), or a larger one")
    parser.add_argument("--samples", type=int, default=6, metavar="R", help="independent samples (6)")
    parser.add_argument("--events", type=int, default=2000, metavar="N", help="events per sample (2,000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the samples (0)")
    args = parser.parse_args()
    if args.flow != "small" and set(args.only) != {"backends"}:
        parser.error("matrices of covariances are for the small flow; give --only backends")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # short trainings and wide posteriors are what this is about
    study = Study(args)
    for part in args.only:
        getattr(study, part)()


if __name__ == "__main__":
    main()
