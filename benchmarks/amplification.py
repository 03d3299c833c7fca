"""How many events is a posterior worth? Calibration and amplification of the gamma ring, as in arXiv:2408.00838 ([F]).

python benchmarks/amplification.py --quick

Each posterior learned 10,000 events. Each of its weight draws generates 1,000 events per bin, for 2 x 2 to 200 x 200
bins of equal true probability; the Poisson noise of these events is not subtracted. The default run generates 40
million events per draw: some hours of a CPU core, a few minutes of a card (--device cuda). With --integrate it takes
minutes of a core: the probabilities of the bins are integrals of the density, and the counts are drawn from them. What
is counted is kept, two draws at a time, so that a killed run goes on when repeated. Several processes share the work
with --only and --part; --gather makes table and figure of what they have counted. Several backends come into one
figure.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import study_options
import torch
from coverage_toys import (
    CALIBRATED,
    GAMMA_RING,
    MINI_BATCHES,
    MODES,
    PUBLISHED,
    SVI_OPTIONS,
    kl_weight,
    setting,
    settings_of,
)
from ring_bins import bin_probabilities

import pyrogen as pg
from pyrogen.coverage.calibration import TWO_SIGMA
from pyrogen.diagnostics import AmplificationFit, QuantileBinResult, fit_amplification, quantile_bins
from pyrogen.files import write_bytes
from pyrogen.hdf5 import Kind, open_hdf5, read_json, write_hdf5, write_json
from pyrogen.plotting import plot_amplification, save_figure
from pyrogen.posterior.weights import StoredDraws
from pyrogen.recipes.backends import NAMES
from pyrogen.seeds import stream

TARGET = pg.targets.GammaRing()
BINS = (2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200)
PER_BIN = 1_000
SLICE = 2  # draws that are counted, and kept, at a time
FEWEST_DRAWS = 5
READ_AT = (400, 900, 40_000)  # numbers of bins for which [F] states G
PROTOCOL: dict[str, dict[str, Any]] = {
    "default": {
        "bootstrap": {"replicas": 24, "steps": 2500, "batch_size": 512, "lr": 5e-3},
        "sets": 4,
        "draws": 24,
        "most": 200,
        "fit_from": 15,
    },
    "quick": {
        "bootstrap": {"replicas": 6, "steps": 40, "batch_size": 100, "lr": 2e-2},
        "sets": 2,
        "draws": 6,
        "most": 5,
        "fit_from": 2,
    },
}
BACKENDS = ("svi", "bootstrap", *MINI_BATCHES)
COUNTS = Kind("bin counts", version=1, sealed=1)


@study_options.stoppable
def run(argv: list[str] | None = None) -> None:
    """Fit, count, and write table and figure.

    Args:
        argv: the command line, by default that of the script.
    """
    parser = make_parser()
    args = parser.parse_args(argv)
    mode = "quick" if args.quick else "default"
    for key in ("sets", "draws", "most"):
        if getattr(args, key) is None:
            setattr(args, key, PROTOCOL[mode][key])
    if args.only is not None and args.only >= args.sets:
        parser.error(f"--only {args.only}: the trainings are 0 to {args.sets - 1}")
    if args.draws < FEWEST_DRAWS:
        parser.error(f"--draws {args.draws}: an error of G needs {FEWEST_DRAWS} draws or more")
    if args.kl_weight is not None and args.backend != "svi":
        parser.error("--kl-weight is an option of svi")
    if args.gather and (args.only is not None or args.part != (0, 1)):
        parser.error("--gather counts nothing: leave out --only and --part")
    given = settings_of(parser, args, "kl_weight", "seed")
    folder = study_options.make_folder(parser, args.out or study_options.default_folder("amplification", mode))
    pg.set_threads(args.threads)
    options = {"kl_weight": args.kl_weight} | given
    chosen = [(key, value) for key, value in options.items() if value is not None]
    stem = folder / "_".join([args.backend, *(f"{key}_{value}" for key, value in chosen)])
    counts = stem.with_name(f"{stem.name}_integrated") if args.integrate else stem
    words = [f"{SVI_OPTIONS.get(key, key)} {value}" for key, value in chosen]
    label = ", ".join([NAMES[args.backend].__name__, *words, *(["integrated"] if args.integrate else [])])
    checkpoint = stem.with_name(f"{stem.name}_checkpoint.h5")
    settings = settings_in(args, mode, given)
    try:
        backend = NAMES[args.backend](**settings, checkpoint=checkpoint)
    except (TypeError, ValueError) as error:
        parser.error(f"--set: {error}")
    files = [stem.with_name(f"{stem.name}_posterior_{r}_of_{args.sets}.h5") for r in range(args.sets)]
    missing = [path.name for path in files if not path.exists()]
    if args.gather and missing:
        parser.exit(1, f"{folder} has no {', '.join(missing)}: repeat the command without --gather to train\n")
    try:
        posteriors = trained(args, mode, backend, settings, files)
    except (TypeError, ValueError) as error:
        parser.exit(1, f"{error}\nOr give another --out.\n")
    which = [args.only] if args.only is not None else range(args.sets)
    slices = [(r, i, one) for r in which for i, one in enumerate(sliced(posteriors[r], r, args))]
    try:
        if not args.gather:
            for r, i, one in slices[args.part[0] :: args.part[1]]:
                count(one, r, i, args, counts)
        if args.only is not None or args.part != (0, 1):
            print(f"counted; --gather makes the table of all that lies in {folder}")
            return
        table(args, mode, counts, label, posteriors, slices)
    except pg.FileFormatError as error:
        parser.exit(1, f"{error}\nDelete it, and what it held is counted again.\n")
    except ValueError as error:  # nothing or too little is counted
        parser.exit(1, f"{error}\n")
    print("wrote", f"  {counts}.json", *(f"  {path}" for path in figures(folder)), sep="\n")


def settings_in(args: Any, mode: str, given: dict[str, Any]) -> dict[str, Any]:
    """The settings of the backend: those of the mode, and what the command line says."""
    kinds = {"svi": GAMMA_RING[mode]["svi"], "bootstrap": PROTOCOL[mode]["bootstrap"]}
    settings = kinds.get(args.backend, GAMMA_RING[mode]["sampled"] | {"chains": 1}) | given
    return settings | {"seed": args.seed} | ({} if args.kl_weight is None else {"kl_weight": args.kl_weight})


def trained(args: Any, mode: str, backend: Any, settings: dict[str, Any], files: list[Path]) -> list[pg.Posterior]:
    """The posteriors from their files, or fitted, all samples in one batch."""
    torch.manual_seed(args.seed)
    n = MODES[mode]["ring_events"]
    samples = TARGET.sample((args.sets, n))
    flow = pg.CouplingFlow(2, **GAMMA_RING[mode]["flow"])
    model = pg.BayesianFlow(flow, prior_scale="fan-in" if args.backend == "bootstrap" else 1.0)
    print(
        f"{args.sets} samples of {n:,} events of {TARGET}, {model.weights:,} weights, {args.backend}, seed {args.seed}"
    )
    if not all(path.exists() for path in files):
        study_options.tell_about(backend.checkpoint)
        for path, posterior in zip(files, backend.fit_many(model, samples), strict=True):
            posterior.save(path)
    posteriors = [pg.load(path) for path in files]
    for path, posterior in zip(files, posteriors, strict=True):
        found = posterior.info.settings  # where a sampler counts the chains of all samples
        differ = [f"{k} {found.get(k)}, not {v}" for k, v in settings.items() if k != "chains" and found.get(k) != v]
        if posterior.info.training_events != n or (differ and args.kl_weight != CALIBRATED):
            raise ValueError(f"{path} was fitted with {', '.join(differ) or 'other events'}")
    return posteriors


def sliced(posterior: pg.Posterior, r: int, args: Any) -> Iterator[pg.Posterior]:
    """Posteriors of a few of the weight draws each."""
    thetas = torch.stack(list(posterior.weights.draws(posterior.weights.at_most(args.draws), own_seed(args, r))))
    for start in range(0, len(thetas) - SLICE + 1, SLICE):
        weights = StoredDraws(thetas[None, start : start + SLICE])
        yield pg.Posterior(posterior.model, weights, info=posterior.info, progress=False)


def own_seed(args: Any, r: int, *part: int) -> int:
    """The seed of a training's weight draws, or of the events of one of its slices."""
    return stream(args.seed, "amplification", r, *part)


def path_of(stem: Path, r: int, i: int) -> Path:
    """Where the counts of a slice are."""
    return stem.with_name(f"{stem.name}_counts_{r}_{i}.h5")


def origin(one: pg.Posterior, args: Any) -> dict[str, Any]:
    """What the counts of a slice belong to."""
    weights = one.weights.arrays["draws"].cpu().numpy().tobytes()
    return {
        "seed": args.seed,
        "per_bin": PER_BIN,
        "integrated": args.integrate,
        "weights": hashlib.sha256(weights).hexdigest(),
    }


def counted(one: pg.Posterior, r: int, i: int, args: Any, stem: Path) -> dict[int, np.ndarray]:
    """Bin counts ``[draws, bins]`` of a slice as far as they are kept, by the number of bins along a coordinate."""
    path = path_of(stem, r, i)
    if not path.exists():
        return {}
    with open_hdf5(path, COUNTS) as file:
        if read_json(file, "origin") != origin(one, args):
            return {}
        return {int(name): np.asarray(entry) for name, entry in file["counts"].items()}


def count(one: pg.Posterior, r: int, i: int, args: Any, stem: Path) -> None:
    """Count the events of a slice, unless it is done. Fewer numbers of bins hold the first events of more."""
    wanted = [n for n in BINS if n <= args.most]
    if set(wanted) <= set(counted(one, r, i, args, stem)):
        return
    found = filled(one.to(args.device), wanted, own_seed(args, r, i), args.integrate)

    def fill(file: h5py.File) -> None:
        write_json(file, "origin", origin(one, args))
        group = file.create_group("counts")
        for n, counts in found.items():
            small = counts.astype(np.int32)
            group.create_dataset(str(n), data=small, chunks=True, compression="gzip", shuffle=True, fletcher32=True)

    write_hdf5(path_of(stem, r, i), COUNTS, fill)
    print(f"counted draws {SLICE * i} to {SLICE * i + SLICE - 1} of training {r}", flush=True)


def filled(one: pg.Posterior, bins: list[int], seed: int, integrate: bool) -> dict[int, np.ndarray]:
    """Bin counts ``[draws, bins]`` of a slice: of generated events, or drawn from the integrals of the density."""
    if not integrate:
        results = quantile_bins([one], TARGET, bins, events_per_bin=PER_BIN, seed=seed)
        return {n: result.counts[0] for n, result in results.items()}
    rng = np.random.default_rng(seed)
    drawn: dict[int, list[np.ndarray]] = {n: [] for n in bins}
    for theta in one.weights.draws(SLICE, seed):
        for n, p in bin_probabilities(partial(density, one.model, theta), TARGET, bins).items():
            drawn[n].append(rng.multinomial(PER_BIN * len(p), p))
    return {n: np.stack(counts) for n, counts in drawn.items()}


@torch.no_grad()
def density(model: pg.BayesianFlow, theta: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Density ``[N]`` of a network at ``x [N, 2]``."""
    return model.log_prob(theta, x.to(theta.device, model.input_dtype)).exp().cpu()


def gathered(
    args: Any, stem: Path, slices: list[Any], training_events: int
) -> tuple[dict[int, QuantileBinResult], dict[int, QuantileBinResult]]:
    """What is counted, by the number of bins: all of it, and of the slices in which all numbers of bins are filled."""
    found = [(r, counted(one, r, i, args, stem)) for r, i, one in slices]
    most = max((n for _, counts in found for n in counts), default=0)
    return tuple(
        {
            n: joined([(r, counts[n]) for r, counts in some if n in counts], n, training_events)
            for n in BINS
            if n <= most
        }
        for some in (found, [(r, counts) for r, counts in found if most in counts])
    )


def joined(parts: list[tuple[int, np.ndarray]], n: int, training_events: int) -> QuantileBinResult:
    """One result of the slices of several trainings: as many draws of each as the one with the fewest has."""
    trainings = sorted({r for r, _ in parts})
    counts = [np.concatenate([part for r, part in parts if r == training]) for training in trainings]
    fewest = min(len(every) for every in counts)
    every = np.stack([some[:fewest] for some in counts]).astype(np.int64)
    return QuantileBinResult(every, PER_BIN * n**TARGET.features, training_events)


def table(args: Any, mode: str, stem: Path, label: str, posteriors: list[pg.Posterior], slices: list[Any]) -> None:
    """G, the fit and the calibration, printed and as JSON.

    G is that of the slices that were counted for all numbers of bins, as the fit needs it. The calibration is that of
    all trainings, of which some may have been counted for few bins only.
    """
    every, complete = gathered(args, stem, slices, posteriors[0].info.training_events or 0)
    if not complete:
        raise ValueError(f"nothing is counted of {label}: repeat the command without --gather")
    told: dict[str, Any] = {"label": label, "settings": posteriors[0].info.settings, "rows": []}
    print(
        f"\n{'bins':>7} {'sets':>5} {'draws':>6} {'G':>9} {'error':>8} {'noise':>6} {'calibration of':>15} "
        f"{'1 sigma':>16} {'pull':>6} {'score':>6} {'G without noise':>19}"
    )
    for n, result in complete.items():
        found = every[n].calibration(subtract_noise=False)
        gain, error = result.amplification(subtract_noise=False)
        try:
            alone, its_own = result.amplification()
        except ValueError:  # too few draws for it, or too much noise
            alone, its_own = math.nan, math.nan
        coverage, its_error = found.fraction()
        trainings, draws, _ = result.counts.shape
        told["rows"].append(
            {"n_bins": result.bins, "trainings": trainings, "draws": draws, "gain": gain, "error": error}
            | {"noise_share": result.noise_share(), "largest": result.largest}
            | {"gain_without_noise": None if math.isnan(alone) else (alone, its_own)}
            | {"calibrated_trainings": found.trainings, "coverage_1": (coverage, its_error), "score": found.score}
            | {"coverage_2": found.fraction(TWO_SIGMA), "pull_width": found.pull_width()}
        )
        print(
            f"{result.bins:7,d} {trainings:5d} {draws:6d} {gain:9.3f} {error:8.3f} {result.noise_share():6.1%} "
            f"{found.trainings:15d} {coverage:7.1%} +- {its_error:5.1%} {found.pull_width()[0]:6.2f} "
            f"{found.score:6.3f} {alone:9.3f} +- {its_own:6.3f}"
        )
    at = 7 if 7 in every else max(every)
    print(f"\n{at} x {at}: {every[at].calibration(subtract_noise=False).text()}")
    try:
        found = every[at].calibration()
        print(f"Without the noise: {found.text()}")
        told["without_noise"] = {"n_bins": at * at, "coverage_1": found.fraction(), "score": found.score}
        told["without_noise"] |= {"coverage_2": found.fraction(TWO_SIGMA), "pull_width": found.pull_width()}
    except ValueError as reason:
        print(f"Without the noise: {reason}")
    fitted = {n: result for n, result in complete.items() if n >= PROTOCOL[mode]["fit_from"]}
    if len(fitted) > 1:
        fit = fit_amplification(fitted, subtract_noise=False)
        told["fit"] = vars(fit)
        print(f"G = a n_bins^b with a = {fit.a:.4f} +- {fit.a_error:.4f}, b = {fit.b:.3f} +- {fit.b_error:.3f}")
        for name, values in {label: fit, **PUBLISHED}.items():
            print(f"{name:>30}: " + ", ".join(f"G({n:,}) = {values(n):.1f}" for n in READ_AT))
    write_bytes(stem.with_name(f"{stem.name}.json"), json.dumps(told, indent=1).encode())


def figures(folder: Path) -> list[Path]:
    """The figure of all backends whose results lie in the folder."""
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    shown = {result["label"]: result for result in results if "fit" in result}
    if not shown:
        return []
    columns = [
        {label: np.array([row[key] for row in result["rows"]]) for label, result in shown.items()}
        for key in ("n_bins", "gain", "error")
    ]
    fits = {label: AmplificationFit(**result["fit"]) for label, result in shown.items()}
    first = next(iter(shown.values()))["rows"][-1]
    limit = {
        f"no width, {PER_BIN:,} events per bin": AmplificationFit(first["largest"] / first["n_bins"], 0.0, 1.0, 0.0)
    }
    return [save_figure(plot_amplification(*columns, fits, PUBLISHED | limit), folder / "amplification.png")]


def part(text: str) -> tuple[int, int]:
    """``i/n``, the share i of n, for argparse."""
    first, _, last = text.partition("/")
    if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a share, such as 0/3, 1/3 or 2/3")
    return int(first), int(last)


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], epilog="A killed run goes on when repeated; finished posteriors stay."
    )
    parser.add_argument("--quick", action="store_true", help="few small trainings and bins, in under a minute")
    parser.add_argument("--backend", choices=BACKENDS, default="svi", help="how the posteriors are found (svi)")
    parser.add_argument("--kl-weight", type=kl_weight, metavar="T", help="factor on the KL of svi, or calibrated")
    parser.add_argument(
        "--set", type=setting, action="append", default=[], metavar="NAME=VALUE", help="another setting of the backend"
    )
    parser.add_argument("--sets", type=study_options.count, metavar="R", help="independent samples (4; quick: 2)")
    parser.add_argument(
        "--draws", type=study_options.several, metavar="K", help="weight draws of a training (24; quick: 6)"
    )
    parser.add_argument("--most", type=study_options.several, metavar="n", help="up to n x n bins (200; quick: 5)")
    parser.add_argument("--integrate", action="store_true", help="integrate the density, and draw the counts from that")
    parser.add_argument(
        "--device",
        type=study_options.device,
        default="cpu",
        metavar="D",
        help="where events are generated and counted, such as cuda (cpu)",
    )
    parser.add_argument("--only", type=study_options.seed, metavar="r", help="count this training alone, from 0")
    parser.add_argument("--part", type=part, default=(0, 1), metavar="i/n", help="count share i, from 0, of n")
    parser.add_argument("--gather", action="store_true", help="count nothing: table and figure of what is counted")
    study_options.add_common(parser, "out/amplification, with the mode")
    return parser


if __name__ == "__main__":
    run()
