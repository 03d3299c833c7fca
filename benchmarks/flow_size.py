"""How large may a flow be for its events? Why mean field collapses, what helps, and which size generalises best.

python benchmarks/flow_size.py course                         # one training, by its length
python benchmarks/flow_size.py mends --target ring            # what could help, each alone
python benchmarks/flow_size.py large --samples 1               # the largest flow, 37,038 weights on 7,000 events
python benchmarks/flow_size.py sizes --target ring --samples 2 # sizes against events, for several methods
"""

import argparse
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

import pyrogen as pg
from pyrogen.diagnostics import agreement

DRAWS, PROBES, FRESH, GENERATED = 30, 100, 4000, 20_000
BATCH = 256
LARGE = (4, (32, 32))  # blocks and hidden layers: 8,308 weights for two features
SIZES = ((2, (8,)), (2, (16, 16)), LARGE, (6, (64, 64)))
EPOCHS = (15, 50, 170, 500)  # of the trainings of ``course``
STEPS = {"course": 3500, "mends": 3500, "large": 2500, "sizes": 2500}
COLUMNS = ("KL/N", "nll", "loss", "nll new", "of mean", "truth", "sigma/p", "|dp|/p", "pull", "chi2", "off")


class Normal:
    """Independent standard normal features: the flow has nothing to learn.

    Args:
        features: number of them.
    """

    def __init__(self, features: int) -> None:
        self.features = features

    def sample(self, shape: tuple[int, ...]) -> Tensor:
        """Events ``[*shape, features]``."""
        return torch.randn(*shape, self.features)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log density ``[...]`` at ``x [..., features]``."""
        return (-0.5 * x.double().square() - 0.5 * math.log(2 * math.pi)).sum(-1)


TARGETS = {"normal": Normal(2), "ring": pg.targets.GammaRing(), "shell": pg.targets.Shell(5)}


@dataclass(frozen=True)
class Method:
    """A prior, a backend and changes of its settings.

    Attributes:
        prior: ``prior_scale`` of the model.
        settings: those that differ from the common ones.
        size: blocks and hidden layers.
        backend: SVI or Bootstrap.
    """

    prior: object
    settings: dict
    size: tuple[int, tuple[int, ...]] = LARGE
    backend: type = pg.SVI


#: No posterior: the means alone, with a KL that does not count, kept where the held-out likelihood is best.
LIKELIHOOD = {
    "kl_weight": 1e-9,
    "init_scale": 1e-7,
    "lr_widths": 1e-12,
    "widths_after": 0.0,
    "local_reparameterization": False,
    "validation": 0.2,
}
REPLICAS = {"replicas": 12}


def near_identity(share: float) -> dict[str, float]:
    """Fan-in, and the last layer of every block narrower by ``share``: the prior's networks hardly move the events."""
    last = {"*.layers.4.weight": share * 32**-0.5, "*.layers.4.bias": share}
    return {"*.layers.0.weight": 1.0, "*.layers.2.weight": 32**-0.5, **last, "*": 1.0}


MENDS = {
    "maximum likelihood, held-out stop": Method(1.0, LIKELIHOOD | {"patience": 20}),
    "prior 1": Method(1.0, {}),
    "prior fan-in": Method("fan-in", {}),
    "fan-in, last layers x 0.5": Method(near_identity(0.5), {}),
    "fan-in, last layers x 0.1": Method(near_identity(0.1), {}),
    "prior 1, stop by held-out loss": Method(1.0, {"validation": 0.2, "patience": 20}),
    "prior 1, widths_after 0.8": Method(1.0, {"widths_after": 0.8}),
    "prior 1, KL x 0.1": Method(1.0, {"kl_weight": 0.1}),
    "fan-in, KL x 0.1": Method("fan-in", {"kl_weight": 0.1}),
    "last layers x 0.1, KL x 0.1": Method(near_identity(0.1), {"kl_weight": 0.1}),
    "fan-in, Bootstrap": Method("fan-in", REPLICAS, backend=pg.Bootstrap),
    "prior 1, 2 blocks of 8 units": Method(1.0, {}, SIZES[0]),
    "fan-in, 2 blocks of 8 units": Method("fan-in", {}, SIZES[0]),
}


def main() -> None:
    """Print one table."""
    args = make_parser().parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # short trainings and wide posteriors are what this is about
    print(f"{'':44s}" + "".join(f"{name:>10s}" for name in COLUMNS))
    for name, method, events in TABLES[args.table](args):
        numbers = measured(fitted(method, events, STEPS[args.table]), TARGETS[args.target], events)
        print(f"{name:44s}" + "".join(f"{value:10.4g}" for value in numbers), flush=True)


def course(args: argparse.Namespace) -> Iterator[tuple[str, Method, Tensor]]:
    """The same training, ended earlier or later."""
    events = samples(args.target, args.samples, 2000, args.seed)
    for epochs in EPOCHS:
        yield f"prior 1, {epochs} epochs", Method(1.0, {"epochs": epochs}), events


def mends(args: argparse.Namespace) -> Iterator[tuple[str, Method, Tensor]]:
    """Everything that could help, alone."""
    events = samples(args.target, args.samples, 2000, args.seed)
    for name, method in MENDS.items():
        yield name, method, events


def large(args: argparse.Namespace) -> Iterator[tuple[str, Method, Tensor]]:
    """The largest flow on 7,000 events: the longer mean field trains, the worse it gets, and what does not."""
    events = samples(args.target, args.samples, 7000, args.seed)
    for epochs in EPOCHS[:3]:
        yield f"prior 1, {epochs} epochs", Method(1.0, {"epochs": epochs}, SIZES[-1]), events
    yield "fan-in, KL x 0.1, 170 epochs", Method("fan-in", {"epochs": 170, "kl_weight": 0.1}, SIZES[-1]), events
    yield "fan-in, Bootstrap", Method("fan-in", REPLICAS, SIZES[-1], pg.Bootstrap), events


def sizes(args: argparse.Namespace) -> Iterator[tuple[str, Method, Tensor]]:
    """Sizes of the flow for sizes of the sample."""
    for n in args.events:
        events = samples(args.target, args.samples, n, args.seed)
        for size in SIZES:
            weights = sum(p.numel() for p in make_flow(events.shape[-1], size).parameters())
            told = f"{n:,} events, {weights:,} weights"
            patience = max(5, 400 // steps_per_epoch(n))
            yield f"{told}, likelihood", Method(1.0, LIKELIHOOD | {"patience": patience}, size), events
            yield f"{told}, mean field", Method("fan-in", {"lr_widths": 0.02}, size), events
            yield f"{told}, KL x 0.1", Method("fan-in", {"lr_widths": 0.02, "kl_weight": 0.1}, size), events
            yield f"{told}, Bootstrap", Method("fan-in", REPLICAS, size, pg.Bootstrap), events


def samples(target: str, number: int, n: int, seed: int) -> Tensor:
    """Independent samples ``[number, n, d]``."""
    torch.manual_seed(seed)
    return TARGETS[target].sample((number, n))


def make_flow(features: int, size: tuple[int, tuple[int, ...]]) -> pg.CouplingFlow:
    """Splines on all of space."""
    return pg.CouplingFlow(features, *size, "rqs")


def steps_per_epoch(n: int) -> int:
    """Steps in a pass over ``n`` events."""
    return max(1, n // BATCH)


def fitted(method: Method, events: Tensor, steps: int) -> list[pg.Posterior]:
    """Posteriors of all samples, after the same number of steps whatever their size."""
    model = pg.BayesianFlow(make_flow(events.shape[-1], method.size), method.prior)
    epochs = math.ceil(steps / steps_per_epoch(events.shape[1]))
    length = {"epochs": epochs} if method.backend is pg.SVI else {"steps": steps}
    settings = {"batch_size": BATCH, "progress": False} | length | method.settings
    return method.backend(**settings).fit_many(model, events)


def measured(posteriors: list[pg.Posterior], target: object, events: Tensor) -> list[float]:
    """The numbers of :data:`COLUMNS`, means over the samples.

    KL per event, negative log-likelihood per training event, their sum; the latter per fresh event, of single networks
    and of the mean density, and its least possible value; relative sigma (median over probe points), relative deviation
    of the mean density and pull (root mean squares); chi2 of the generated marginals in 24 bins, and the largest
    deviation per bin of any column or pair.
    """
    probes, fresh = sample_with(target, PROBES, 99), sample_with(target, FRESH, 98)
    at_probes = target.log_prob(probes).double().exp()
    draws = posteriors[0].weights.at_most(DRAWS)
    rows, means, sigmas = [], [], []
    for posterior, own in zip(posteriors, events, strict=True):
        density = posterior.log_prob(probes, draws=draws).double().exp()
        means.append(density.mean(0))
        sigmas.append(density.std(0))
        new = posterior.log_prob(fresh, draws=draws).double()
        mixture = torch.logsumexp(new, 0) - math.log(len(new))
        nll = -float(posterior.log_prob(own, draws=draws).double().mean())
        kl = relative_entropy(posterior) / posterior.info.size
        generated, true = posterior.sample(GENERATED, seed=5), target.sample((GENERATED,))
        found = agreement(true.double().numpy(), generated.double().numpy())
        columns = [i for i, names in enumerate(found.names) if len(names) == 1]
        rows.append(
            [kl, nll, nll + kl, -float(new.mean()), -float(mixture.mean()), -float(target.log_prob(fresh).mean())]
            + [float(found.chi2[columns].mean()), float(found.deviation.max())]
        )
    mean, sigma = torch.stack(means), torch.stack(sigmas)
    *first, chi2, off = torch.tensor(rows, dtype=torch.float64).mean(0).tolist()
    deviation = (mean / at_probes - 1).square().mean().sqrt()
    pull = ((mean - at_probes) / sigma).square().mean().sqrt()
    return [*first, float((sigma / mean).median()), float(deviation), float(pull), chi2, off]


def relative_entropy(posterior: pg.Posterior) -> float:
    """KL of independent Gaussians from the prior, in nats; NaN for other posteriors."""
    if not posterior.weights.independent:
        return math.nan
    scale = posterior.model.prior_scales
    width, mean = (posterior.weights.arrays[name].double() / scale for name in ("scale", "loc"))
    return float(0.5 * (width.square() + mean.square() - 1 - 2 * width.log()).sum())


def sample_with(target: object, n: int, seed: int) -> Tensor:
    """``n`` events of the truth, always the same ones."""
    torch.manual_seed(seed)
    return target.sample((n,))


TABLES = {"course": course, "mends": mends, "large": large, "sizes": sizes}


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES, help="which table to print")
    parser.add_argument("--target", choices=TARGETS, default="normal", help="the truth (normal)")
    parser.add_argument("--samples", type=int, default=3, metavar="R", help="independent samples (3)")
    parser.add_argument("--events", type=int, nargs="+", default=[1000, 5000, 20_000], metavar="N", help="for sizes")
    parser.add_argument("--seed", type=int, default=1, help="seed of the samples (1)")
    return parser


if __name__ == "__main__":
    main()
