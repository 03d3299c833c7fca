"""Calorimeter showers given the incident energy: learn them, make new ones with their uncertainties.

    python examples/showers.py                                   # 160,000 parametric photons, in an hour of one core
    python examples/showers.py --particle pi+
    python examples/showers.py --file dataset_1_photons_1.hdf5 --geometry binning_dataset_1_photons.xml
    python examples/showers.py --quick                           # 6,000 photons, in a minute
    python examples/classifier_control.py out/showers            # what is wrong with them?

Files are those of the CaloChallenge, of CaloGAN, or of pg.events.write_showers. Parametric showers are mean profiles
with fluctuations; they replace no simulation of a detector. The flow is that of docs/showers.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from command_line import HELD_OUT, add_common, count, fitted, make_folder, path, several, stoppable, tell_about
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import pyrogen as pg
from pyrogen.events import Observable, Showers
from pyrogen.files import write_bytes
from pyrogen.plotting import HistogramPanel, plot_kinematics, plot_training, save_figure

MODES: dict[str, dict[str, Any]] = {
    "quick": {
        "showers": 7_500,
        "flow": {"blocks": 2, "hidden": (32,), "bins": 6},
        "svi": {"epochs": 25, "batch_size": 256, "lr": 4e-3, "lr_widths": 3e-2, "widths_after": 0.5},
        "draws": 10,
    },
    "default": {
        "showers": 200_000,
        "flow": {"blocks": 4, "hidden": (64, 64), "bins": 6},
        "svi": {"epochs": 48, "batch_size": 512, "lr": 2e-3, "lr_widths": 3e-2, "widths_after": 0.6},
        "draws": 20,
    },
}


@stoppable
def main() -> None:
    """Read, fit, generate, compare."""
    started = time.monotonic()
    parser = make_parser()
    args = parser.parse_args()
    mode = MODES["quick" if args.quick else "default"]
    pg.set_threads(args.threads)
    try:
        showers = read(args, mode["showers"])
    except (OSError, ValueError, MemoryError) as error:
        parser.error(str(error))
    if len(showers) < 200:
        parser.error(f"{len(showers)} showers; too few to learn from and to compare with")
    out = make_folder(parser, args.out or Path("out") / ("showers_quick" if args.quick else "showers"))
    print(showers)

    order = np.random.default_rng(args.seed).permutation(len(showers))
    rows = np.split(order, [round(HELD_OUT * len(showers))])
    truth, learned = (showers[its] for its in rows)
    pg.events.write_showers(truth, out / "held_out.hdf5")
    geometry = truth.geometry
    flow = pg.ShowerFlow(geometry.sizes, args.threshold, order=geometry.outside_in, **mode["flow"], seed=args.seed)
    model = pg.BayesianFlow(flow)
    print(f"\n{len(learned):,} training showers, flow with {model.weights:,} weights, seed {args.seed}")
    checkpoint = out / "run_checkpoint.h5"
    tell_about(checkpoint)
    settings = mode["svi"] | ({"epochs": args.epochs} if args.epochs else {})
    svi = pg.SVI(**settings, validation=0.05, seed=args.seed, checkpoint=checkpoint)
    posterior = fitted(parser, svi, model, learned.events, args.file, learned.context)
    posterior.save(out / "posterior.h5")
    save_figure(plot_training(posterior.history), out / "training.png")

    # One generated shower for each true one, of the same incident energy.
    draws = args.draws or mode["draws"]
    generated = posterior.generate(len(truth), draws, context=truth.context, seed=args.seed, log_weights=True)
    generated.save(out / "generated.h5")
    made = Showers(generated, truth.energies, geometry)
    observables = pg.events.shower_observables(geometry, float(np.quantile(truth.energies, 0.999)))
    panels = compare(observables, truth, generated)
    for i, number in enumerate(geometry.numbers):
        own = [panel for name, panel in panels.items() if name.endswith(f"_{number}")]
        save_figure(plot_kinematics(own, truth_label="held-out showers"), out / f"layer_{i}.png")
    whole = [panel for name, panel in panels.items() if not name[-1].isdigit()]
    save_figure(plot_kinematics(whole, truth_label="held-out showers"), out / "showers.png")
    save_figure(plot_images(truth, made), out / "images.png")
    rows = table(observables, truth, made, panels)
    summary = {
        "showers": len(learned),
        "weights": model.weights,
        "loss": {name: float(posterior.history[name][-1]) for name in ("nll", "kl")},
        "seconds_training": float(posterior.history["seconds"][-1]),
        "seconds_all": time.monotonic() - started,
        "settings": posterior.info.settings,
        "observables": rows,
    }
    write_bytes(out / "summary.json", json.dumps(summary, indent=1).encode())
    median = float(np.median(generated.uncertainties))  # type: ignore[arg-type]
    print(f"\n{len(made):,} generated showers, median uncertainty of the density {median:.1%}")
    times = f"training {summary['seconds_training']:.0f} s (in all), this run {summary['seconds_all']:.0f} s"
    print(f"{times}; wrote {out}/")


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, metavar="SHOWERS", help="showers to learn; parametric ones if left out")
    parser.add_argument(
        "--geometry",
        type=geometry,
        metavar="XML",
        help="for files of the CaloChallenge: the binning file, or boundaries of the layers such as 0,8,20",
    )
    parser.add_argument("--particle", choices=("gamma", "e-", "e+", "pi-", "pi+"), help="of parametric showers (gamma)")
    parser.add_argument("--threshold", type=float, default=1e-3, metavar="GEV", help="least energy of a cell (0.001)")
    parser.add_argument("--quick", action="store_true", help="a small network and few showers, in a minute")
    parser.add_argument("--events", type=count, metavar="N", help="showers, a fifth held out (200,000; quick: 7,500)")
    parser.add_argument("--epochs", type=count, metavar="E", help="passes over the showers (48; quick: 25)")
    parser.add_argument("--draws", type=several, metavar="K", help="weight draws of a prediction (20; quick: 10)")
    add_common(parser, "out/showers, with the mode")
    return parser


def geometry(text: str) -> Path | tuple[int, ...]:
    """The path of a binning file, or boundaries of layers, for argparse."""
    parts = text.split(",")
    return tuple(map(int, parts)) if len(parts) > 1 and all(part.isdecimal() for part in parts) else path(text)


def read(args: argparse.Namespace, most: int) -> Showers:
    """The showers of the file, or parametric ones, without cells below the threshold."""
    wanted = args.events or most
    if args.file is None:
        if args.geometry is not None:
            raise ValueError("--geometry is of a file; give --file, too")
        return pg.events.showers(wanted, args.particle or "gamma", seed=1 + args.seed, threshold=args.threshold)
    if args.particle is not None:
        raise ValueError("--particle is of parametric showers; leave it out with --file")
    return pg.events.read_showers(args.file, args.geometry, n=args.events).suppressed(args.threshold)


def compare(
    observables: Mapping[str, Observable], truth: Showers, generated: pg.EventSample
) -> dict[str, HistogramPanel]:
    """Distributions with the posterior's band, as fractions of all showers.

    What a shower does not have, such as the centre of an empty layer, is in no bin. Bins begin and end where the truth
    has next to nothing.
    """
    counts, wanted = {}, {}
    for name, observable in observables.items():
        values = observable(truth.events).numpy()
        there = values[np.isfinite(values)]
        if not len(there) or np.ptp(there) == 0:
            continue
        bins = edges_of(there)
        counts[name], wanted[name] = np.histogram(there, bins)[0], (observable, bins)
    bands = pg.sample_histograms(generated, wanted)
    return {
        name: HistogramPanel(
            bands[name], its, len(truth), label=observables[name].label, unit=observables[name].unit, log=True
        )
        for name, its in counts.items()
    }


def edges_of(values: np.ndarray, bins: int = 30) -> np.ndarray:
    """Bins between the quantiles of 0.1 and 99.9 %; of few different values, one for each."""
    different = np.unique(values)
    if len(different) <= 2 * bins:
        middle = 0.5 * (different[1:] + different[:-1])
        return np.array([2 * different[0] - middle[0], *middle, 2 * different[-1] - middle[-1]])
    low, high = np.quantile(values, [0.001, 0.999])
    return np.linspace(low, high, bins + 1) if low < high else np.linspace(different[0], different[-1], bins + 1)


def table(
    observables: Mapping[str, Observable], truth: Showers, made: Showers, panels: Mapping[str, HistogramPanel]
) -> dict[str, Any]:
    """Means, the fractions of showers without a layer, and how many bins agree within the errors; printed."""
    heads = " ".join(f"{head:>11}" for head in ("mean truth", "generated", "of showers", "generated"))
    print(f"\n{'observable':22} {heads}  bins within 2 sigma")
    rows = {}
    for name, panel in panels.items():
        true, new = (observables[name](each.events).numpy() for each in (truth, made))
        density, error = panel.truth()
        sigma = np.hypot(error, panel.band.std / panel.band.widths)
        pull = (panel.band.mean / panel.band.widths - density)[error > 0] / sigma[error > 0]
        row = {"truth": float(np.nanmean(true)), "generated": float(np.nanmean(new))}
        row |= {"has_truth": float(np.isfinite(true).mean()), "has_generated": float(np.isfinite(new).mean())}
        rows[name] = row | {"within_2": float(np.mean(np.abs(pull) < 2)), "largest_pull": float(np.abs(pull).max())}
        label = f"{name} [{panel.unit}]" if panel.unit else name
        numbers = f"{row['truth']:11.4g} {row['generated']:11.4g} {row['has_truth']:11.2%} {row['has_generated']:11.2%}"
        print(f"{label:22} {numbers}  {rows[name]['within_2']:.0%} of {len(pull)}")
    return rows


def plot_images(truth: Showers, made: Showers) -> Figure:
    """Mean energy of each cell, true and generated showers, and their ratio; one row for each layer."""
    pairs = list(zip(truth.geometry.numbers, truth.images, made.images, strict=True))
    figure = Figure(figsize=(12, 2.6 * len(pairs)), layout="constrained")
    axes = figure.subplots(len(pairs), 3, squeeze=False)
    for row, (number, true, new) in zip(axes, pairs, strict=True):
        mean = [images.mean(0) for images in (true, new)]
        top = max(float(image.max()) for image in mean)
        norm = LogNorm(max(top * 1e-4, 1e-9), top)
        for axis, image, title in zip(row, mean, ("held-out showers", "generated"), strict=False):
            shown = axis.imshow(image, norm=norm, cmap="viridis", aspect="auto", origin="lower")
            axis.set_title(f"layer {number}, {title}", fontsize="medium")
        figure.colorbar(shown, ax=list(row[:2]), label="mean energy [GeV]")
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = mean[1] / mean[0]
        shown = row[2].imshow(ratio, vmin=0.8, vmax=1.2, cmap="RdBu_r", aspect="auto", origin="lower")
        row[2].set_title(f"layer {number}, generated / held-out", fontsize="medium")
        figure.colorbar(shown, ax=row[2])
        for axis in row:
            axis.set_xlabel("column")
            axis.set_ylabel("row")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


if __name__ == "__main__":
    main()
