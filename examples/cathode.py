"""Search for a resonance with CATHODE, with the uncertainty of the background flow in the score and the significance.

    python examples/cathode.py --quick                 # dijets of the repository, in a minute
    python examples/cathode.py FILE                    # the R&D data of the LHC Olympics, as pg.events.lhco reads them
    python examples/cathode.py FILE --part data --test test    # tables of an .npz file: the search, and labelled events

Conditional flows learn the background in the sidebands and generate it in the signal region. Classifiers compare it
with the data and give each event a score. After each cut on the score, the number of events is compared with the
background that the flows predict, with its uncertainty (arXiv:2109.00546). Labels are used only after the search: for
the true background, and for the SIC curve.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import command_line

import pyrogen as pg
from pyrogen import search
from pyrogen.events import Dijets, dijet_coordinates, lhco
from pyrogen.files import write_bytes
from pyrogen.plotting import (
    plot_mass_after_cut,
    plot_sic,
    plot_significance,
    plot_template,
    save_figure,
)

REGIONS = search.Regions(signal=(3.4, 3.6), window=(3.3, 3.7))
SAMPLE = Path(__file__).parent / "data" / "dijets_8k.h5"
MODES: dict[str, dict[str, Any]] = {
    "default": {
        # More blocks are wrong in fewer places together, and take longer (docs/cathode.md).
        "flow": {"blocks": 6, "hidden": (16, 16), "bins": 8},
        "backend": {"replicas": 6, "steps": 800, "batch_size": 512, "lr": 5e-3},
        "search": {"folds": 2, "ensemble": 4, "background": 5.0},
    },
    "quick": {
        "flow": {"blocks": 4, "hidden": (8,), "bins": 6},
        "backend": {"replicas": 4, "steps": 200, "batch_size": 200, "lr": 1e-2},
        "search": {"folds": 1, "ensemble": 2, "template": 2.0, "background": 4.0, "cuts": (0.3, 0.1, 0.03, 0.01)},
    },
}


def read(arguments: argparse.Namespace) -> tuple[Dijets, Dijets | None]:
    """The events of the search, and labelled ones of the signal region for the SIC curve, if there are any."""
    if arguments.file is None:
        sample = Dijets.read(SAMPLE)
        return sample[REGIONS.inside(sample.events.column("mjj"))], None
    found = lhco(arguments.file, part=arguments.part, window=REGIONS.window)
    if arguments.test is None:
        return found, None
    test = lhco(arguments.file, part=arguments.test, window=REGIONS.signal)
    return found, test


@command_line.stoppable
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=command_line.path, nargs="?", help="labelled events (dijets of the repository)")
    parser.add_argument("--part", help="table of an .npz file to search")
    parser.add_argument("--test", help="table of an .npz file with labelled events, for the SIC curve")
    parser.add_argument("--flows", type=command_line.count, default=3, help="flows that share the sidebands (3)")
    parser.add_argument("--quick", action="store_true", help="a small search of a minute")
    command_line.add_common(parser, "out/cathode")
    arguments = parser.parse_args()
    pg.set_threads(arguments.threads)
    name = "quick" if arguments.quick else "default"
    mode = MODES[name]
    folder = command_line.make_folder(parser, arguments.out or command_line.default_folder("cathode", name))
    try:
        data, test = read(arguments)
    except (OSError, ValueError) as error:  # FileFormatError is one of them
        parser.exit(1, f"{error}\n")
    print(data)

    flow = pg.CouplingFlow(features=4, context=1, transform="rqs", mixing="random", seed=arguments.seed, **mode["flow"])
    model = pg.BayesianFlow(flow, prior_scale="fan-in", preprocessing=dijet_coordinates())
    backend = pg.Bootstrap(**mode["backend"], checkpoint=folder / "flow.checkpoint.h5")
    result = search.cathode(
        data.events,
        REGIONS,
        model,
        mass="mjj",
        energy=13.0,
        backend=backend,
        flows=arguments.flows,
        seed=arguments.seed,
        **mode["search"] | {"folds": max(2, mode["search"]["folds"] * arguments.flows)},
    )
    print(result.text())
    for k, posterior in enumerate(result.posteriors):
        posterior.save(folder / f"flow{k}.h5")
    figures = {
        "template": plot_template(result),
        "significance": plot_significance(result),
        "mass": plot_mass_after_cut(result),
    }
    summary = {"seconds": result.seconds, "settings": result.settings, "table": result.rows()}
    if data.signal is not None:
        inside = result.sample.in_signal
        truth = [int((~data.signal & inside & result.passed(c)).sum()) for c in range(len(result.table))]
        print("true background after each cut:", *truth)
        summary["true_background"] = truth
    if test is not None and test.signal is not None:
        scores = result.of(test.events.select(result.sample.features.names))
        curve = search.sic_curve(scores[test.signal], scores[~test.signal])
        figures["sic"] = plot_sic({"CATHODE": curve})
        print(curve)
    for name, figure in figures.items():
        save_figure(figure, folder / f"{name}.png")
    write_bytes(folder / "cathode.json", json.dumps(summary, indent=1).encode())
    print(f"figures and numbers are in {folder}")


if __name__ == "__main__":
    main()
