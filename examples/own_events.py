"""Your own events: fit any number of features from a file, generate new events with their uncertainties.

python examples/own_events.py events.h5 --columns pt eta --generate 100000

Without a file it takes the Drell-Yan sample in examples/data. A fifth of the events is held out from the training;
the figures compare the generated distributions with these.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from command_line import add_common, count, held_out, make_folder, several, stoppable, tell_about

import pyrogen as pg
from pyrogen.diagnostics import advise
from pyrogen.files import write_bytes
from pyrogen.plotting import HistogramPanel, plot_histograms, plot_training, save_figure

DRELL_YAN = Path(__file__).parent / "data" / "drell_yan_5k.h5"

# Small networks for small samples: more weights than the events can determine only widen the uncertainty.
MODES: dict[str, dict[str, Any]] = {
    "quick": {
        "affine": {"blocks": 8, "hidden": (16, 16), "mixing": "rotation"},
        "rqs": {"blocks": 6, "hidden": (16,), "bins": 6},
        "svi": {"epochs": 40, "batch_size": 256, "lr": 5e-3, "lr_widths": 3e-2},
        "evaluation": {"draws": 20, "histogram": 5_000, "generate": 2_000},
    },
    "default": {
        "affine": {"blocks": 12, "hidden": (32, 32), "mixing": "rotation"},
        "rqs": {"blocks": 6, "hidden": (16, 16), "bins": 8},
        "svi": {"epochs": 200, "batch_size": 256, "lr": 5e-3, "lr_widths": 3e-2},
        "evaluation": {"draws": 50, "histogram": 20_000, "generate": 10_000},
    },
}


@stoppable
def main() -> None:
    """Read, fit, generate, compare."""
    started = time.monotonic()
    parser = make_parser()
    args = parser.parse_args()
    mode = MODES["quick" if args.quick else "default"]
    evaluation = mode["evaluation"]
    draws, wanted = args.draws or evaluation["draws"], args.generate or evaluation["generate"]
    try:
        sample = pg.events.read(args.file, dataset=args.dataset, columns=args.columns)
    except (OSError, ValueError, KeyError) as error:
        parser.error(str(error.args[0] if isinstance(error, KeyError) else error))
    if len(sample) < 100:
        parser.error(f"{args.file} holds {len(sample)} events; too few to learn from and to compare with")
    out = make_folder(parser, args.out or Path("out") / ("own_events_quick" if args.quick else "own_events"))
    pg.set_threads(args.threads)
    print(sample.summary())

    truth, learned = held_out(sample, args.seed)
    truth.save(out / "held_out.h5")
    settings = mode["svi"] | ({"epochs": args.epochs} if args.epochs else {})
    settings["batch_size"] = min(settings["batch_size"], len(learned) // 2)
    # Splines act within five standard deviations of the standardised events and leave alone what is further out.
    size = {name: value for name in ("blocks", "hidden") if (value := getattr(args, name))}
    flow = pg.CouplingFlow(sample.features, transform=args.transform, **mode[args.transform] | size)
    model = pg.BayesianFlow(flow)
    print(f"\n{len(learned):,} training events, {args.transform} flow with {model.weights:,} weights, seed {args.seed}")
    checkpoint = out / "run_checkpoint.h5"
    tell_about(checkpoint)
    svi = pg.SVI(**settings, validation=0.1, seed=args.seed, checkpoint=checkpoint)
    try:
        posterior = svi.fit(model, learned)
    except pg.CheckpointMismatchError as error:
        parser.exit(1, f"{error}\nOr give another --out.\n")
    except ValueError as error:  # a constant column, weights that cancel: nothing was trained yet
        parser.exit(1, f"{args.file}: {error}\n")
    posterior.save(out / "posterior.h5")

    generated = posterior.generate(wanted, draws=draws, seed=args.seed)
    generated.save(out / "generated.h5")
    panels = compare(posterior, truth, draws, evaluation["histogram"])
    save_figure(plot_histograms(panels, truth_label="held-out events"), out / "histograms.png")
    save_figure(plot_training(posterior.history), out / "training.png")

    rows = [summarise(panel, truth, generated) for panel in panels]
    print_table(rows)
    advice = advise(posterior, learned, draws=draws, seed=args.seed)
    print(f"\n{advice.text()}")
    summary = {"columns": rows, "seconds": time.monotonic() - started, "settings": posterior.info.settings}
    summary["advice"] = [vars(finding) for finding in advice.findings]
    write_bytes(out / "summary.json", json.dumps(summary, indent=1).encode())
    median = float(np.median(generated.uncertainties))  # type: ignore[arg-type]
    print(f"\n{wanted:,} generated events, median uncertainty {median:.1%}, {summary['seconds']:.0f} s")
    files = ("posterior.h5", "held_out.h5", "generated.h5", "histograms.png", "training.png", "summary.json")
    print("wrote", *(f"  {out / file}" for file in files), sep="\n")


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=DRELL_YAN, metavar="EVENTS", help="events to learn")
    parser.add_argument("--dataset", metavar="NAME", help="which table of an HDF5 file that holds several")
    parser.add_argument("--columns", nargs="+", metavar="NAME", help="columns to learn (all)")
    parser.add_argument("--quick", action="store_true", help="a small network, in under a minute")
    parser.add_argument("--transform", choices=("affine", "rqs"), default="rqs", help="coupling (rqs)")
    parser.add_argument("--blocks", type=count, metavar="B", help="coupling blocks")
    parser.add_argument("--hidden", type=count, nargs="+", metavar="U", help="units of each hidden layer of a block")
    parser.add_argument("--epochs", type=count, metavar="E", help="passes over the events (200; quick: 40)")
    parser.add_argument("--draws", type=several, metavar="K", help="weight draws of a prediction (50; quick: 20)")
    parser.add_argument("--generate", type=count, metavar="N", help="events to generate (10,000; quick: 2,000)")
    add_common(parser, "out/own_events, with the mode")
    return parser


def compare(posterior: pg.Posterior, truth: pg.EventSample, draws: int, events_per_draw: int) -> list[HistogramPanel]:
    """Histograms of all columns, generated with the posterior's band and held out with its errors."""
    bins = max(10, min(40, round(0.6 * len(truth) ** 0.5)))
    # The central 98 %, so that a far tail does not squeeze the rest into one bin.
    limits = {name: np.quantile(truth.column(name), [0.01, 0.99]) for name in truth.names}
    wanted = {name: (name, np.linspace(low, high, bins + 1)) for name, (low, high) in limits.items()}
    bands = posterior.histograms(wanted, n=events_per_draw, draws=draws)
    weights = np.ones(len(truth)) if truth.weights is None else truth.weights
    return [
        HistogramPanel(
            band,
            counts=np.histogram(truth.column(name), band.edges, weights=weights)[0],
            total=truth.total_weight,
            errors=np.sqrt(np.histogram(truth.column(name), band.edges, weights=weights**2)[0]),
            label=name,
            unit=unit,
        )
        for (name, band), unit in zip(bands.items(), truth.units, strict=True)
    ]


def summarise(panel: HistogramPanel, truth: pg.EventSample, generated: pg.EventSample) -> dict[str, Any]:
    """Mean and spread of a column, and chi2 per bin of its histogram with the band's and the truth's errors."""
    density, error = panel.truth()
    predicted, band = panel.band.mean / panel.band.widths, panel.band.std / panel.band.widths
    filled = error > 0
    chi2 = np.sum(((predicted - density)[filled] / np.hypot(error, band)[filled]) ** 2)
    true, new = truth.column(panel.label), generated.column(panel.label)
    mean = np.average(true, weights=truth.weights)
    return {
        "name": panel.label,
        "unit": panel.unit,
        "mean_truth": float(mean),
        "mean_generated": float(new.mean()),
        "std_truth": float(np.sqrt(np.average((true - mean) ** 2, weights=truth.weights))),
        "std_generated": float(new.std()),
        "chi2": float(chi2),
        "bins": int(filled.sum()),
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    """One line per column; truth is the held-out events."""
    labels = [f"{row['name']} [{row['unit']}]" if row["unit"] else row["name"] for row in rows]
    width = max(6, *map(len, labels))
    headers = ("mean truth", "generated", "std truth", "generated")
    print(f"\n{'column':{width}} " + " ".join(f"{header:>11}" for header in headers), "chi2/bins")
    for label, row in zip(labels, rows, strict=True):
        numbers = [row[key] for key in ("mean_truth", "mean_generated", "std_truth", "std_generated")]
        print(f"{label:{width}} " + " ".join(f"{x:11.4g}" for x in numbers), f"{row['chi2']:6.1f}/{row['bins']}")


if __name__ == "__main__":
    main()
