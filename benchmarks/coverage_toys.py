"""Is the uncertainty right? One model learns many samples of a toy, and every band is held against the truth.

python benchmarks/coverage_toys.py --quick

All samples are fitted in one batch. Of the central credible intervals at 68.3 %, 68.3 % should hold the truth: along
lines of the toys of arXiv:2104.04543 ([A]), or in bins of equal probability of the gamma ring of arXiv:2408.00838,
where the amplification is read off, too. Several backends come into one figure when the command is repeated with
another --backend, --kl-weight, --flow or --events. With --kl-weight calibrated networks of a first fit find the
factor, without the truth. With --bootstrap the truth is not used: networks of a first fit stand in for it, as they can
for any events. (--backend bootstrap is something else: the backend pg.Bootstrap.)
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import study_options
import torch
from pyro.infer.autoguide import AutoLowRankMultivariateNormal

import pyrogen as pg
from pyrogen.diagnostics import (
    AmplificationFit,
    Calibration,
    bootstrap_calibration,
    calibration_along_lines,
    effective_parameters,
    fit_amplification,
    probe_points,
    quantile_bins,
)
from pyrogen.files import write_bytes
from pyrogen.plotting import plot_amplification, plot_calibration, save_figure
from pyrogen.recipes.backends import AFFINE, NAMES, RING_BOX, WIDE_RING_BOX, make_backend, make_small_model

TARGETS: dict[str, Any] = {
    "wedge": pg.targets.Wedge(),
    "kicker": pg.targets.Kicker(),
    "ring": pg.targets.GaussianRing(),
    "gamma-ring": pg.targets.GammaRing(),
}
MODES: dict[str, dict[str, Any]] = {
    "default": {"sets": 20, "events": 2_000, "ring_events": 10_000, "draws": 100, "points": 41},
    "quick": {"sets": 4, "events": 300, "ring_events": 300, "draws": 20, "points": 9},
}
#: The gamma ring has a hole; spline couplings on standardised events learn it from 10,000 events.
GAMMA_RING: dict[str, dict[str, Any]] = {
    "default": {
        "flow": {"blocks": 4, "hidden": (16, 16), "transform": "rqs", "bins": 8},
        "svi": {"epochs": 300, "batch_size": 512, "lr": 5e-3, "lr_widths": 5e-2},
        "sampled": {"warmup": 60, "draws": 100, "thinning": 50, "batch_size": 512, "start_steps": 3000},
        "bins": (5, 7, 10, 14, 20, 30),
        "generated": 40_000,
    },
    "quick": {
        "flow": {"blocks": 2, "hidden": (8,), "transform": "rqs", "bins": 5},
        "svi": {"epochs": 30, "batch_size": 100, "lr": 2e-2, "lr_widths": 1e-1},
        "sampled": {"warmup": 8, "draws": 10, "thinning": 5, "batch_size": 100, "start_steps": 40},
        "bins": (2, 3, 4),
        "generated": 20_000,
    },
}
#: Larger flows of the toys, with settings for 20,000 events and more.
LARGER: dict[str, dict[str, dict[str, Any]]] = {
    "default": {
        "affine": AFFINE["default"],
        "spline": {"blocks": 4, "hidden": (16, 16), "transform": "rqs", "bins": 8},
        "svi": {"steps": 12_000, "batch_size": 1024, "lr": 3e-3, "lr_widths": 2e-2, "widths_after": 0.4},
        "bootstrap": {"replicas": 16, "steps": 4_000, "batch_size": 1024, "lr": 5e-3},
    },
    "quick": {
        "affine": {"blocks": 2, "hidden": (8,)},
        "spline": {"blocks": 2, "hidden": (8,), "transform": "rqs", "bins": 4},
        "svi": {"steps": 60, "batch_size": 100, "lr": 2e-2, "lr_widths": 1e-1},
        "bootstrap": {"replicas": 4, "steps": 60, "batch_size": 100, "lr": 2e-2},
    },
}
MANY = 50_000  # events of a ring, of which some lie more than five widths outside
CALIBRATED = "calibrated"  # a factor on the KL that is found on the first sample, without its truth
SVI_OPTIONS = {"kl_weight": "KL \u00d7", "epochs": "epochs", "rank": "rank", "prior": "prior width"}
MINI_BATCHES = ("sgld", "sghmc", "adam-mcmc")  # the samplers that need not see all events of the gamma ring
PUBLISHED = {  # [F]: the fits of G = a n_bins^b
    "[F], VI": AmplificationFit(0.0043, 0.0029, 0.99, 0.07),
    "[F], AdamMCMC": AmplificationFit(0.0121, 0.0047, 0.986, 0.037),
}


@study_options.stoppable
def run(argv: list[str] | None = None) -> None:
    """Fit, count, and write tables and figures.

    Args:
        argv: the command line, by default that of the script.
    """
    parser = make_parser()
    args = parser.parse_args(argv)
    mode = "quick" if args.quick else "default"
    changed = {key: getattr(args, key) for key in SVI_OPTIONS if getattr(args, key) is not None}
    if set(changed) - {"prior"} and args.backend != "svi":
        parser.error(f"--{next(iter(changed)).replace('_', '-')} is an option of svi")
    changed_too = settings_of(parser, args, "kl_weight", "epochs", "chains", "device")
    if args.flow != "small" and (args.target == "gamma-ring" or args.backend not in LARGER["default"]):
        parser.error(f"--flow {args.flow} is for the toys, with --backend svi or bootstrap")
    out = study_options.make_folder(parser, args.out or study_options.default_folder("coverage", mode))
    folder = study_options.make_folder(parser, out / args.target)
    pg.set_threads(args.threads)
    ring, target = args.target == "gamma-ring", TARGETS[args.target]
    sets = args.sets or MODES[mode]["sets"]
    n = args.events or MODES[mode]["ring_events" if ring else "events"]
    torch.manual_seed(args.seed)
    samples = target.sample((sets, n))

    options = {"flow": None if args.flow == "small" else args.flow, "events": args.events} | changed | changed_too
    chosen = [(key, value) for key, value in options.items() if value is not None]
    words = [f"{key}_{value}" for key, value in chosen]
    name = "_".join([args.backend, *words])
    if args.bootstrap:
        name += "_bootstrap"
    checkpoint = folder / f"{name}_checkpoint.h5"
    try:
        model, backend = setup(args, mode, checkpoint, n)
    except (TypeError, ValueError) as error:
        parser.error(f"--set: {error}")
    print(f"{sets} samples of {n:,} events of {target}, {model.weights:,} weights, {args.backend}, seed {args.seed}")
    study_options.tell_about(checkpoint)
    try:
        if args.bootstrap:
            bootstrap(model, backend, samples[0], sets, folder / name, MODES[mode]["draws"], args.seed)
            return
        posteriors = backend.fit_many(model, samples)
    except (pg.CheckpointMismatchError, pg.FileFormatError) as error:
        parser.exit(1, f"{error}\nOr give another --out.\n")

    if args.kl_weight == CALIBRATED:
        print(f"\nkl_weight: {posteriors[0].info.calibration}")
    result: dict[str, Any] = {"target": args.target, "backend": args.backend, "sets": sets, "events": n}
    result["label"] = ", ".join([NAMES[args.backend].__name__, *(f"{SVI_OPTIONS.get(k, k)} {v}" for k, v in chosen)])
    result |= {"settings": posteriors[0].info.settings, "mode": mode, "seed": args.seed, "weights": model.weights}
    result["seconds"] = posteriors[0].info.seconds
    draws = min(posterior.weights.at_most(MODES[mode]["draws"]) for posterior in posteriors)
    if ring:
        try:
            found, told = ring_results(posteriors, mode, draws, args.seed)
        except ValueError as error:  # the noise of the generated events is all there is, as in a quick run
            parser.exit(1, f"{error}\n")
    else:
        first, last = (0.01, 0.99) if args.target != "ring" else target.line_range
        t = torch.linspace(first, last, MODES[mode]["points"], dtype=torch.float64)
        found, told = calibration_along_lines(posteriors, target, t, draws=draws, seed=args.seed), {}
    result |= told | numbers(found) | {"effective_parameters": p_waic(posteriors, target, draws, args.seed)}
    write_bytes(folder / f"{name}.json", json.dumps(result, indent=1).encode())
    print("\n" + found.text())
    print(f"effective parameters (p_WAIC) of {model.weights:,} weights: {result['effective_parameters']:.1f}")
    written = [folder / f"{name}.json", *figures(folder)]
    print("wrote", *(f"  {path}" for path in written), sep="\n")


def bootstrap(
    model: pg.BayesianFlow, backend: Any, events: torch.Tensor, sets: int, path: Path, draws: int, seed: int
) -> None:
    """Calibration without the truth: one sample is fitted, and networks of its posterior generate the others."""
    first = replace(backend, checkpoint=path.with_name(f"{path.name}_first_checkpoint.h5")).fit(model, events)
    count = first.weights.at_most(draws)  # the others will hold as many
    found = bootstrap_calibration(backend, first, len(events), sets, draws=count, seed=seed)
    result = numbers(found) | {
        "bootstrap": True,
        "bias_over_sigma": None,
        "settings": first.info.settings,
        "seed": seed,
    }
    written = path.with_name(f"{path.name}.json")
    write_bytes(written, json.dumps(result, indent=1).encode())
    print(f"\n{found.text()}\nwrote\n  {written}")


def setup(args: Any, mode: str, checkpoint: Path, n: int) -> tuple[pg.BayesianFlow, Any]:
    """Model and backend; samplers run one chain per sample, as independent samples count for more here."""
    prior = "fan-in" if args.prior is None else args.prior
    if args.target == "gamma-ring":
        settings = GAMMA_RING[mode]
        model = pg.BayesianFlow(
            pg.CouplingFlow(2, **settings["flow"]), prior_scale=1.0 if args.prior is None else args.prior
        )
        if args.backend in ("svi", *MINI_BATCHES):
            kind = "svi" if args.backend == "svi" else "sampled"
            backend = NAMES[args.backend](**settings[kind], seed=args.seed, checkpoint=checkpoint)
        else:
            backend = make_backend(args.backend, mode, args.seed, checkpoint)
    elif args.flow != "small":
        on_box = args.flow == "spline" and args.target != "ring"
        flow = pg.CouplingFlow(2, **LARGER[mode][args.flow], base="uniform" if on_box else "normal")
        model = pg.BayesianFlow(flow, prior_scale=prior)
        settings = dict(LARGER[mode][args.backend])
        if args.backend == "svi":
            settings["epochs"] = max(1, round(settings.pop("steps") * settings["batch_size"] / n))
        backend = NAMES[args.backend](**settings, seed=args.seed, checkpoint=checkpoint)
    else:
        box = WIDE_RING_BOX if n > MANY else RING_BOX
        model = make_small_model(mode, args.target == "ring", prior, box)
        backend = make_backend(args.backend, mode, args.seed, checkpoint)
    backend = replace(backend, device=args.device, **dict(args.set))
    if hasattr(backend, "chains"):
        backend = replace(backend, chains=args.chains)
    if args.kl_weight is not None:
        backend = replace(backend, kl_weight=args.kl_weight)
    if args.epochs is not None:
        backend = replace(backend, epochs=args.epochs)
    if args.rank is not None:  # one sample after another: only the mean-field guide is batched
        backend = replace(backend, guide=partial(AutoLowRankMultivariateNormal, rank=args.rank))
    return model, backend


def numbers(found: Calibration) -> dict[str, Any]:
    """What the tables and figures of several backends need of a calibration, for JSON."""
    return {
        "coverage_1": found.fraction(),
        "coverage_2": found.fraction(0.9545),
        "pull_width": found.pull_width(),
        "sigma_over_spread": found.sigma_ratio(),
        "score": found.score,
        "verdict": found.verdict,
        "bias_over_sigma": float(np.sqrt(np.mean(found.bias**2) / np.mean(found.sigma**2))),
        "calibration": {
            "ranks": found.ranks.tolist(),
            "means": found.means.tolist(),
            "sigmas": found.sigmas.tolist(),
            "truth": found.truth.tolist(),
            "draws": found.draws,
            "at": found.at.tolist(),
            "label": found.label,
            "effective_draws": None if np.isnan(found.effective_draws) else found.effective_draws,
        },
    }


def ring_results(
    posteriors: list[pg.Posterior], mode: str, draws: int, seed: int
) -> tuple[Calibration, dict[str, Any]]:
    """Calibration in 7 x 7 bins (quick: 3 x 3), calibration scores and the amplification for all numbers of bins."""
    settings = GAMMA_RING[mode]
    results = quantile_bins(
        posteriors,
        TARGETS["gamma-ring"],
        settings["bins"],
        events=settings["generated"],
        draws=draws,
        seed=seed,
    )
    seen, gains, errors, scores = {}, [], [], []
    for n, result in results.items():
        try:
            (gain, error), score = result.amplification(), result.calibration().score
        except ValueError as reason:
            print(f"{n:3d} x {n}: {reason}")
            continue
        print(
            f"{n:3d} x {n}: G = {gain:.3f} +- {error:.3f}, calibration score {score:.3f}, "
            f"noise share {result.noise_share():.2f}"
        )
        seen[n] = result
        for column, value in ((gains, gain), (errors, error), (scores, score)):
            column.append(value)
    told: dict[str, Any] = {"n_bins": [n * n for n in seen], "gains": gains, "gain_errors": errors, "scores": scores}
    if len(seen) > 1:
        fit = fit_amplification(seen)
        print(f"G = a n_bins^b with a = {fit.a:.4f} +- {fit.a_error:.4f}, b = {fit.b:.3f} +- {fit.b_error:.3f}")
        told["fit"] = vars(fit)
    return results[settings["bins"][1]].calibration(), told


def p_waic(posteriors: list[pg.Posterior], target: Any, draws: int, seed: int) -> float:
    """Effective number of parameters, mean over the trainings; events of the truth stand for the training events."""
    events = probe_points(target, 2000, seed)
    return float(np.mean([effective_parameters(p, events, draws, seed=seed) for p in posteriors]))


def calibration_in(result: dict[str, Any]) -> Calibration:
    """What :func:`numbers` wrote."""
    entries = {key: value for key, value in result["calibration"].items() if value is not None}
    return Calibration(**{key: np.array(v) if isinstance(v, list) else v for key, v in entries.items()})


def figures(folder: Path) -> list[Path]:
    """Figures of all backends whose results lie in the folder."""
    every = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    results = {name: result for name, result in every.items() if "bootstrap" not in result}  # other quantities
    found = {result.get("label", name): calibration_in(result) for name, result in results.items()}
    written = [save_figure(plot_calibration(found), folder / "calibration.png")]
    rings = {result.get("label", name): result for name, result in results.items() if "fit" in result}
    if rings:
        columns = [{name: np.array(r[key]) for name, r in rings.items()} for key in ("n_bins", "gains", "gain_errors")]
        fits = {name: AmplificationFit(**result["fit"]) for name, result in rings.items()}
        written.append(save_figure(plot_amplification(*columns, fits, PUBLISHED), folder / "amplification.png"))
    return written


def positive(text: str) -> float:
    """A positive number, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


def kl_weight(text: str) -> float | str:
    """A positive number, or the word for one that is to be found, for argparse."""
    return text if text == CALIBRATED else positive(text)


def setting(text: str) -> tuple[str, Any]:
    """``name=value`` with a value in JSON, for argparse."""
    name, _, value = text.partition("=")
    try:
        if name.isidentifier():
            return name, json.loads(value)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE with a value in JSON")


def settings_of(parser: argparse.ArgumentParser, args: Any, *own: str) -> dict[str, Any]:
    """What --set says. Nothing may be given twice: by another --set, or by one of the options ``own``."""
    names = [name for name, _ in args.set]
    for name in names:
        if names.count(name) > 1:
            parser.error(f"--set {name}: it is given {names.count(name)} times")
        if name in own and getattr(args, name) is not None:
            parser.error(f"--set {name}: give it once, as --{name.replace('_', '-')}")
    return dict(args.set)


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Coverage of the uncertainty over many independent trainings.",
        epilog="A killed run goes on when repeated.",
    )
    parser.add_argument("--quick", action="store_true", help="few small trainings, in under a minute")
    parser.add_argument("--target", choices=TARGETS, default="wedge", help="the truth (wedge)")
    parser.add_argument("--backend", choices=NAMES, default="svi", help="how the posteriors are found (svi)")
    parser.add_argument(
        "--flow", choices=("small", "affine", "spline"), default="small", help="of a toy; the larger ones need events"
    )
    parser.add_argument(
        "--set", type=setting, action="append", default=[], metavar="NAME=VALUE", help="another setting of the backend"
    )
    parser.add_argument("--kl-weight", type=kl_weight, metavar="T", help="factor on the KL of svi, or calibrated")
    parser.add_argument("--epochs", type=study_options.count, metavar="E", help="passes over the events, of svi")
    parser.add_argument(
        "--rank", type=study_options.count, metavar="r", help="a low-rank guide for svi instead of mean field"
    )
    parser.add_argument("--prior", type=positive, metavar="s", help="one prior width for all weights")
    parser.add_argument("--bootstrap", action="store_true", help="networks of a first fit stand in for the truth")
    parser.add_argument("--sets", type=study_options.several, metavar="R", help="independent samples (20; quick: 4)")
    parser.add_argument(
        "--events",
        type=study_options.count,
        metavar="N",
        help="events per sample (2,000; gamma ring: 10,000; quick: 300)",
    )
    parser.add_argument(
        "--chains", type=study_options.count, default=1, metavar="C", help="chains per sample of a sampler (1)"
    )
    parser.add_argument("--device", type=study_options.device, default="cpu", help="where to train: cpu or cuda (cpu)")
    study_options.add_common(parser, "out/coverage, with the mode")
    return parser


if __name__ == "__main__":
    run()
