"""How many true events is a generator worth? GANs, flows, a fit and a kernel density on the same few events.

python benchmarks/ganplify.py --quick

The study of arXiv:2008.06545 ([D]): every generator learns R independent samples, of 100 events of a camel back in one
dimension (--target camel) or of a ring (ring), or 500 events of a shell in five dimensions (shell). Each makes 100,000
events. Their error in quantiles of the truth says how many true events they are worth. Finished trainings and studies
are kept, so that a killed run goes on when repeated. With --events other training samples come into the same figures.
The fit needs the extra "fits".
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import study_options
import torch

import pyrogen as pg
from pyrogen import diagnostics
from pyrogen.diagnostics import Amplification
from pyrogen.files import write_bytes
from pyrogen.plotting import plot_factor, plot_quantile_deviation, plot_quantile_error, save_figure

#: Targets, training events, quantiles along each coordinate; coordinates that are projected on ten quantiles each.
TARGETS: dict[str, dict[str, Any]] = {
    "camel": {"target": pg.targets.CamelBack(), "events": 100, "bins": (10, 20, 50), "projected": ()},
    "ring": {"target": pg.targets.FullRing(), "events": 100, "bins": (5, 7, 10), "projected": ("r", "phi")},
    "shell": {
        "target": pg.targets.Shell(),
        "events": 500,
        "bins": (3, 4, 6),
        "projected": ("r", "theta1", "theta2", "theta3", "phi"),
    },
}
PROJECTED = (10,)
ALIKE = (50, 49, 243)  # quantiles that are compared across the targets: about one or two events in each
REFERENCES: dict[str, Callable[[torch.Tensor], Any]] = {
    "memory": diagnostics.memorised,
    "fit": diagnostics.fit_two_gaussians,
    "kde": diagnostics.kernel_density,
}
LABELS = {
    "memory": "training sample",
    "fit": "likelihood fit",
    "kde": "kernel density",
    "gan": "GAN",
    "flow": "one flow",
    "svi": "SVI",
    "calibrated": "SVI, calibrated",
    "bootstrap": "Bootstrap",
    "hmc": "HMC",
}
#: Flows for so few events: a spline where there is one feature, and smooth affine blocks for several.
AFFINE: dict[str, Any] = {"blocks": 8, "hidden": (16,), "transform": "affine", "activation": "tanh"}
FLOWS: dict[str, dict[str, Any]] = {
    "camel": {"blocks": 1, "hidden": (8,), "transform": "rqs", "bins": 8},
    "ring": AFFINE,
    "shell": AFFINE,
}
BACKENDS: dict[str, Any] = {
    "gan": pg.GAN,
    "flow": pg.Ensemble,
    "svi": pg.SVI,
    "calibrated": pg.SVI,
    "bootstrap": pg.Bootstrap,
    "hmc": pg.HMC,
}
SVI_EPOCHS = {"batch_size": 100, "lr_widths": 5e-2}
TRAINING: dict[str, dict[str, dict[str, Any]]] = {
    "camel": {
        "gan": {},
        "flow": {"members": 1, "steps": 300, "lr": 2e-2},
        "svi": SVI_EPOCHS | {"epochs": 600, "lr": 2e-2},
        "bootstrap": {"replicas": 24, "steps": 300, "lr": 2e-2},
        "hmc": {"chains": 1, "warmup": 80, "draws": 50, "start_steps": 300},
    },
    "ring": {
        "gan": {},
        "flow": {"members": 1, "steps": 400, "lr": 1e-2},
        "svi": SVI_EPOCHS | {"epochs": 600, "lr": 1e-2},
        "bootstrap": {"replicas": 16, "steps": 400, "lr": 1e-2},
        "hmc": {"chains": 1, "warmup": 80, "draws": 50, "start_steps": 300},
    },
    "shell": {
        "gan": {"epochs": 200},  # as many steps as the others
        "flow": {"members": 1, "steps": 400, "lr": 1e-2},
        "svi": SVI_EPOCHS | {"epochs": 200, "lr": 1e-2},
        "bootstrap": {"replicas": 8, "steps": 400, "lr": 1e-2},
        "hmc": {"chains": 1, "warmup": 50, "draws": 30, "start_steps": 300},
    },
}
QUICK: dict[str, dict[str, Any]] = {
    "gan": {"epochs": 20},
    "flow": {"steps": 60},
    "svi": {"epochs": 150},
    "bootstrap": {"replicas": 4, "steps": 100},
    "hmc": {"warmup": 5, "draws": 5, "start_steps": 40},
}
MODES: dict[str, dict[str, Any]] = {
    "default": {"trainings": 20, "sizes": (100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000)},
    "quick": {"trainings": 3, "sizes": (100, 300, 1_000, 3_000, 10_000)},
}
IN_QUICK = ("memory", "fit", "kde", "gan", "svi", "bootstrap")


@study_options.stoppable
def run(argv: list[str] | None = None) -> None:
    """Train, generate, count, and write table and figures.

    Args:
        argv: the command line, by default that of the script.
    """
    parser = make_parser()
    args = parser.parse_args(argv)
    args.mode = "quick" if args.quick else "default"
    study = TARGETS[args.target]
    args.trainings = args.trainings or MODES[args.mode]["trainings"]
    args.events = args.events or study["events"]
    chosen = args.generators or [name for name in LABELS if args.mode == "default" or name in IN_QUICK]
    if args.target != "camel":
        if "fit" in (args.generators or []):
            parser.error(f"--generators fit: the form of two Gaussians is that of --target camel, not {args.target}")
        chosen = [name for name in chosen if name != "fit"]
    if args.trainings < 3:
        parser.error(f"--trainings {args.trainings}: a band needs three or more")
    out = study_options.make_folder(parser, args.out or study_options.default_folder("ganplify", args.mode))
    folder = study_options.make_folder(parser, out / f"{args.target}_{args.events}")
    pg.set_threads(args.threads)
    torch.manual_seed(args.seed)
    # The first samples are the same whatever their number: generators of fewer trainings come into the same figures.
    drawn = max(args.trainings, MODES["default"]["trainings"])
    samples = study["target"].sample((drawn, args.events))[: args.trainings]
    print(f"{args.trainings} samples of {args.events} events of {study['target']}, seed {args.seed}", flush=True)
    try:
        for name in chosen:
            judge(name, samples, args, folder)
    except (pg.CheckpointMismatchError, pg.FileFormatError, ImportError) as error:
        parser.exit(1, f"{error}\nOr give another --out.\n")
    found, told = gathered(folder), summary(folder)
    print("\n" + table(found, told))
    write_bytes(folder / "summary.json", json.dumps(told, indent=1).encode())
    written = [folder / "summary.json", *figures(folder, found), *across(out)]
    print("wrote", *(f"  {path}" for path in written), sep="\n")


def judge(name: str, samples: torch.Tensor, args: Any, folder: Path) -> None:
    """Train one kind of generator on all samples and count its events in quantiles, unless that is done."""
    study = TARGETS[args.target]
    sizes = MODES[args.mode]["sizes"]
    backend, model = backend_of(name, args, folder)
    identity: dict[str, Any] = {"trainings": args.trainings, "seed": args.seed}
    identity |= {"backend": backend.describe() if backend else None, "flow": model.flow.config if model else None}
    identity = json.loads(json.dumps(identity))  # tuples become lists, as in the file
    counted = identity | {"sizes": list(sizes), "bins": list(study["bins"])}
    path = folder / f"{name}.json"
    if path.exists():
        before = json.loads(path.read_text())
        if before["identity"] == counted:
            print(f"{LABELS[name]}: kept from before", flush=True)
            return
    generators, seconds = trained(name, backend, model, samples, folder, identity)
    start = time.process_time()
    options: dict[str, Any] = {"training_events": args.events, "sizes": sizes, "seed": args.seed}
    result = diagnostics.amplification(generators, study["target"], study["bins"], **options)
    result.save(folder / f"{name}.h5")
    told: dict[str, Any] = {"label": LABELS[name], "cpu_seconds": seconds, "identity": counted}
    told |= {"weights": model.weights if model else None, "rows": result.table()}
    if study["projected"]:
        part = diagnostics.amplification(
            generators, study["target"], PROJECTED, coordinates=study["projected"], **options
        )
        part.save(folder / f"{name}_projected.h5")
        told["rows"] += part.table()
    failed = [r for r, generator in enumerate(generators) if not getattr(generator, "converged", True)]
    told["not_converged"] = failed
    told["study_cpu_seconds"] = time.process_time() - start
    write_bytes(path, json.dumps(told, indent=1).encode())
    print(f"\n{result.text()}", flush=True)
    if failed:
        print(f"fits {failed} did not converge")


def backend_of(name: str, args: Any, folder: Path) -> tuple[Any, pg.BayesianFlow | None]:
    """What trains a generator, and its model; nothing for references."""
    if name in REFERENCES:
        return None, None
    kind = "svi" if name == "calibrated" else name
    settings = TRAINING[args.target][kind] | (QUICK[kind] if args.mode == "quick" else {})
    settings |= {"kl_weight": "calibrated"} if name == "calibrated" else {}
    backend = BACKENDS[name](**settings, seed=args.seed, progress=False, checkpoint=folder / f"{name}_run.h5")
    if name == "gan":
        return backend, None
    flow = pg.CouplingFlow(TARGETS[args.target]["target"].features, **FLOWS[args.target])
    return backend, pg.BayesianFlow(flow, prior_scale="fan-in")


def trained(
    name: str, backend: Any, model: Any, samples: torch.Tensor, folder: Path, identity: dict[str, Any]
) -> tuple[list[Any], float]:
    """The generators, one for each sample, and the CPU seconds that they took, all together.

    Trained ones come from their files where these are of the same run.
    """
    start = time.process_time()
    if name in REFERENCES:
        return [REFERENCES[name](sample) for sample in samples], time.process_time() - start
    kept = folder / f"{name}_trainings"
    kept.mkdir(exist_ok=True)
    files = [kept / f"{r}.h5" for r in range(len(samples))]
    note = kept / "identity.json"
    before = json.loads(note.read_text()) if note.exists() else {}
    same = {key: before.get(key) for key in identity} == identity
    if not (same and all(path.exists() for path in files)):
        print(f"\ntraining {LABELS[name]} ...", flush=True)
        generators = backend.fit_many(samples) if name == "gan" else backend.fit_many(model, samples)
        for path, generator in zip(files, generators, strict=True):
            generator.save(path)
        before = identity | {"cpu_seconds": time.process_time() - start}
        write_bytes(note, json.dumps(before).encode())
    load = pg.GANSampler.load if name == "gan" else pg.load
    return [load(path) for path in files], before.get("cpu_seconds", float("nan"))


def gathered(folder: Path, suffix: str = "") -> dict[str, Amplification]:
    """Studies in a folder, by the names of the generators."""
    paths = {name: folder / f"{name}{suffix}.h5" for name in LABELS}
    return {LABELS[name]: Amplification.load(path) for name, path in paths.items() if path.exists()}


def summary(folder: Path) -> dict[str, Any]:
    """All numbers of a folder, for JSON."""
    return {
        LABELS[name]: json.loads((folder / f"{name}.json").read_text())
        for name in LABELS
        if (folder / f"{name}.json").exists()
    }


def table(found: dict[str, Amplification], told: dict[str, Any]) -> str:
    """Equivalent events and factor of all generators at every number of quantiles, and the time of their trainings."""
    lines = []
    rows = next(iter(told.values()))["rows"]
    for row in rows:
        lines.append(f"{row['label']}: worth true events, factor G; CPU time of the trainings")
        for label, its in told.items():
            own = next((each for each in its["rows"] if each["label"] == row["label"]), None)
            if own is None:
                continue
            worth = f"> {own['equivalent_events_limit']:,.0f}", f"> {own['factor_limit']:.1f}"
            if own["resolved"]:
                (n, n_error), (gain, error) = own["equivalent_events"], own["factor"]
                worth = f"{n:,.0f} +- {n_error:,.0f}", f"{gain:.2f} +- {error:.2f}"
            time_taken = f"{its['cpu_seconds']:,.0f} s for {own['trainings']} trainings"
            lines.append(f"  {label:<20}{worth[0]:>18}{worth[1]:>18}{time_taken:>28}")
    return "\n".join(lines)


def figures(folder: Path, found: dict[str, Amplification]) -> list[Path]:
    """The figures of all generators in a folder."""
    written = [save_figure(plot_quantile_error(found, band="error"), folder / "quantile_error.png")]
    written.append(save_figure(plot_factor(found), folder / "factor.png"))
    projected = gathered(folder, "_projected")
    if projected:
        written.append(save_figure(plot_quantile_error(projected, band="error"), folder / "projected.png"))
    if next(iter(found.values())).features == 2:
        full = {name: replace(one, rows=[r for r in one.rows if r.bins == 7]) for name, one in found.items()}
        written.append(save_figure(plot_quantile_deviation(full), folder / "deviation.png"))
    return written


def across(out: Path) -> list[Path]:
    """Factor against dimension, and against training events, of all folders that there are."""
    written = []
    default = {name: gathered(out / f"{name}_{its['events']}") for name, its in TARGETS.items()}
    by_name: dict[str, list[Amplification]] = {}
    for found in default.values():
        for label, one in found.items():
            by_name.setdefault(label, []).append(one)
    several = {label: those for label, those in by_name.items() if len(those) > 1}
    if several:
        path = out / "factor_dimension.png"
        written.append(save_figure(plot_factor(several, against="features", quantiles=ALIKE), path))
    for name in TARGETS:
        folders = [path for path in out.glob(f"{name}_*") if path.is_dir()]
        sized: dict[str, list[Amplification]] = {}
        for folder in folders:
            for label, one in gathered(folder).items():
                sized.setdefault(label, []).append(one)
        several = {label: those for label, those in sized.items() if len(those) > 1}
        if several:
            path = out / f"factor_training_events_{name}.png"
            written.append(save_figure(plot_factor(several, against="training_events", quantiles=ALIKE), path))
    return written


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], epilog="A killed run goes on when repeated; finished trainings stay."
    )
    parser.add_argument("--quick", action="store_true", help="three short trainings of few generators, in a minute")
    parser.add_argument("--target", choices=TARGETS, default="camel", help="the truth (camel)")
    parser.add_argument(
        "--generators", nargs="+", choices=LABELS, metavar="G", help=f"of {', '.join(LABELS)} (all; quick: some)"
    )
    parser.add_argument("--trainings", type=study_options.count, metavar="R", help="independent samples (20; quick: 3)")
    parser.add_argument("--events", type=study_options.count, metavar="N", help="training events (100; shell: 500)")
    study_options.add_common(parser, "out/ganplify, with the mode")
    return parser


if __name__ == "__main__":
    run()
