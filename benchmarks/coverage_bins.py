"""What the studies of coverage in the bins of observables share: fit, generate, fill bins, count, table and figure."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import study_options
import torch
from coverage_toys import SVI_OPTIONS, numbers, setting, settings_of

import pyrogen as pg
from pyrogen.diagnostics import BinCalibration, advise
from pyrogen.diagnostics.bin_calibration import ALL, judge_bins
from pyrogen.files import write_bytes
from pyrogen.plotting import plot_calibration, save_figure
from pyrogen.progress import bar
from pyrogen.seeds import seeded, stream

NAMES: dict[str, Any] = {"bootstrap": pg.Bootstrap, "svi": pg.SVI}
DRAWS = 32
LEAST = 10  # training events that a bin has to expect; emptier ones are left out


@dataclass(frozen=True)
class Study:
    """One kind of events.

    Attributes:
        name: of the script, and of the folder for the results.
        target: what the events are called.
        modes: settings of the modes "default" and "quick".
        read: the command line's arguments, how many training events, and how many of the truth, to both samples.
        make_model: arguments of the flow, and the training events, to a model.
        edges: bin edges of every observable.
        values: events ``[m, d]`` to the values of every observable; those of events without its objects are left out.
        groups: observables whose bins are also counted together.
        few: the truth has so few events that its own error counts.
        filled_at_once: events that are generated and filled at once.
    """

    name: str
    target: str
    modes: Mapping[str, Mapping[str, Any]]
    read: Callable[[argparse.Namespace, int, int], tuple[pg.EventSample, pg.EventSample]]
    make_model: Callable[[Mapping[str, Any], pg.EventSample], pg.BayesianFlow]
    edges: Mapping[str, np.ndarray]
    values: Callable[[torch.Tensor], dict[str, torch.Tensor]]
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    few: bool = False
    filled_at_once: int = 1 << 18

    def fill(self, events: torch.Tensor) -> dict[str, torch.Tensor]:
        """Contents of the bins of every observable, on the device of the events."""
        found = {}
        for name, values in self.values(events).items():
            edges = torch.tensor(self.edges[name], dtype=torch.float64, device=events.device)
            place = torch.bucketize(values.contiguous(), edges, right=True)
            found[name] = torch.bincount(place, minlength=len(edges) + 1)[1 : len(edges)]
        return found


def run(study: Study, parser: argparse.ArgumentParser, argv: list[str] | None = None) -> None:
    """Fit, generate, count, and write table and figure.

    Args:
        study: of which events.
        parser: the command line, of :func:`make_parser`.
        argv: its words, by default those of the script.
    """
    args = parser.parse_args(argv)
    mode = "quick" if args.quick else "default"
    settings = study.modes[mode]
    given = settings_of(parser, args, "kl_weight", "seed", "device")
    generated = args.generate or settings["generated"]
    sets, n = args.sets or settings["sets"], args.events or settings["events"]
    changed = {"kl_weight": args.kl_weight} if args.kl_weight is not None else {}
    if changed and args.backend != "svi":
        parser.error("--kl-weight is an option of svi")
    out = study_options.make_folder(parser, args.out or study_options.default_folder(study.name, mode))
    pg.set_threads(args.threads)
    try:
        train, truth = study.read(args, sets * n, settings["truth"])
    except (OSError, ValueError, ImportError) as error:
        parser.error(str(error))
    if len(train) < sets * n:
        parser.error(f"{sets} samples of {n:,} events need {sets * n:,}; --train has {len(train):,}")
    chosen = [
        (key, value) for key, value in [("events", args.events), *changed.items(), *given.items()] if value is not None
    ]
    name = "_".join([args.backend, *(f"{key}_{value}" for key, value in chosen)])
    checkpoint = out / f"{name}_checkpoint.h5"
    options = settings[args.backend] | changed | given
    try:
        backend = NAMES[args.backend](**options, seed=args.seed, checkpoint=checkpoint, device=args.device)
    except (TypeError, ValueError) as error:
        parser.error(f"--set: {error}")
    model = study.make_model(settings["flow"], train)
    print(f"{sets} samples of {n:,} {study.target} events, {model.weights:,} weights, {args.backend}, seed {args.seed}")
    study_options.tell_about(checkpoint)
    try:
        posteriors = backend.fit_many(model, torch.tensor(train.values[: sets * n]).reshape(sets, n, -1))
    except (pg.CheckpointMismatchError, pg.FileFormatError) as error:
        parser.exit(1, f"{error}\nOr give another --out.\n")

    look = advise(posteriors[0], train[:n], seed=args.seed)
    print(f"\nthe first training:\n{look.text()}\n", flush=True)
    filled = out / f"{name}_bins_{generated}.json"
    counts = filled_bins(study, posteriors, generated, args.seed, filled)
    result = judged(study, counts, generated, n, truth, args.seed)
    print(f"\n{result.text()}")
    found = result.intervals
    told = {key: numbers(one) | {"sigma_over_spread": result.sigma_ratio(key)} for key, one in found.items()}
    label = ", ".join(
        [NAMES[args.backend].__name__, *(f"{SVI_OPTIONS.get(key, key)} {value}" for key, value in chosen)]
    )
    summary = {
        "target": study.target,
        "backend": args.backend,
        "label": label,
        "sets": sets,
        "events": n,
        "truth": len(truth),
        "settings": posteriors[0].info.settings,
        "mode": mode,
        "seed": args.seed,
        "weights": model.weights,
        "seconds": posteriors[0].info.seconds,
        "converged": look.converged,
        "observables": {key: told[key] for key in study.edges if key in told},
        "groups": {key: told[key] for key in study.groups if key in told},
    } | told[ALL]
    write_bytes(out / f"{name}.json", json.dumps(summary, indent=1).encode())
    shown = {key: found[key] for key in study.groups if key in found} or {label: found[ALL]}
    figure = save_figure(plot_calibration(shown), out / f"{name}.png")
    print("wrote", *(f"  {path}" for path in (filled, out / f"{name}.json", figure)), sep="\n")


def filled_bins(
    study: Study, posteriors: list[pg.Posterior], generated: int, seed: int, path: Path
) -> dict[str, np.ndarray]:
    """Bins of every weight draw of every training, ``[R, K, B]``, kept in a file; a repeated command reads them.

    A file of other trainings is filled afresh.
    """
    trainings = [[p.info.data_sha256, json.loads(json.dumps(p.info.settings))] for p in posteriors]
    of = {"trainings": trainings, "generated": generated, "seed": seed}
    if path.exists() and (kept := json.loads(path.read_text())).get("of") == of:
        print(f"bins of the generated events are those of {path}; delete it to fill them afresh", flush=True)
        return {name: np.array(its) for name, its in kept["counts"].items()}
    draws = min(posterior.weights.at_most(DRAWS) for posterior in posteriors)
    shape = (len(posteriors), draws)
    counts = {name: np.zeros((*shape, len(edges) - 1), dtype=np.int64) for name, edges in study.edges.items()}
    shown = bar(len(posteriors) * draws, "bins", "draw", brief=True)
    with seeded(stream(seed, "coverage"), posteriors[0].model.device), torch.no_grad(), shown:
        for r, posterior in enumerate(posteriors):
            for k, theta in enumerate(posterior.weights.draws(draws, stream(seed, "coverage", r))):
                for start in range(0, generated, study.filled_at_once):
                    events = posterior.model.sample_events(theta, min(study.filled_at_once, generated - start))
                    for name, content in study.fill(events).items():
                        counts[name][r, k] += content.cpu().numpy()
                shown.update()
    kept = {"of": of, "counts": {name: its.tolist() for name, its in counts.items()}}
    write_bytes(path, json.dumps(kept).encode())
    return counts


def judged(
    study: Study, counts: dict[str, np.ndarray], generated: int, training_events: int, truth: pg.EventSample, seed: int
) -> BinCalibration:
    """The calibration of all bins; the error of a truth of few events is in the intervals."""
    shares = {name: its.numpy() / len(truth) for name, its in study.fill(torch.tensor(truth.values)).items()}
    errors = {name: np.sqrt(p * (1 - p) / len(truth)) for name, p in shares.items()} if study.few else None
    shared = (LEAST, study.groups, seed)
    return judge_bins(counts, generated, training_events, shares, errors, len(truth), *shared)


def make_parser(doc: str | None, folder: str, sets: str, events: str) -> argparse.ArgumentParser:
    """The command line.

    Args:
        doc: what the script says of itself.
        folder: default folder for the results.
        sets: default number of samples, in words.
        events: default number of events of each, in words.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few small trainings, in a minute")
    parser.add_argument(
        "--backend", choices=NAMES, default="bootstrap", help="how the posteriors are found (bootstrap)"
    )
    parser.add_argument("--train", type=Path, metavar="FILE", help="events to learn from, instead of Pythia's")
    parser.add_argument("--truth", type=Path, metavar="FILE", help="other events of the same kind, many more")
    parser.add_argument("--sets", type=study_options.several, metavar="R", help=f"independent samples ({sets})")
    parser.add_argument("--events", type=study_options.count, metavar="N", help=f"events per sample ({events})")
    parser.add_argument(
        "--generate", type=study_options.count, metavar="M", help="events that every weight draw generates"
    )
    parser.add_argument("--kl-weight", type=float, metavar="T", help="factor on the KL of svi")
    parser.add_argument(
        "--set", type=setting, action="append", default=[], metavar="NAME=VALUE", help="another setting of the backend"
    )
    parser.add_argument(
        "--device", type=study_options.device, default="cpu", help="where to train and generate: cpu or cuda (cpu)"
    )
    study_options.add_common(parser, f"{folder}, with the mode")
    return parser
