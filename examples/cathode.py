"""Search for a resonance with CATHODE, with the uncertainty of the background flow in the score and the significance.

    python examples/cathode.py --quick                 # dijets of the repository, in a minute
    python examples/cathode.py FILE                    # the R&D data of the LHC Olympics, as pg.events.lhco reads them
    python examples/cathode.py FILE --part data --test test    # tables of an .npz file: the search, and labelled events

Conditional flows learn the background in the sidebands and generate it in the signal region. Classifiers compare it
with the data and give each event a score. After each cut on the score, the number of events is compared with the
background that the flows predict, with its uncertainty (arXiv:2109.00546). Labels are used only after the search: for
the true background, and for the SIC curve.
"""

import argparse
import json
from pathlib import Path

import pyrogen as pg
from pyrogen import plotting, search
from pyrogen.events import Dijets, dijet_coordinates, lhco

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("file", type=Path, nargs="?", help="labelled events (dijets of the repository)")
parser.add_argument("--part", help="table of an .npz file to search")
parser.add_argument("--test", help="table of an .npz file with labelled events, for the SIC curve")
parser.add_argument("--flows", type=int, default=3, help="flows that share the sidebands (3)")
parser.add_argument("--quick", action="store_true", help="a small search of a minute")
parser.add_argument("--seed", type=int, default=0, help="seed of flows and classifiers (0)")
parser.add_argument("--out", type=Path, help="folder for the results (out/cathode)")
args = parser.parse_args()
out = args.out or Path("out") / ("cathode_quick" if args.quick else "cathode")
out.mkdir(parents=True, exist_ok=True)
pg.set_threads(1)  # the same bits every time

# 1. Dijets around the mass where we look. The signal region is inside the window, the sidebands are the rest of it.
regions = search.Regions(signal=(3.4, 3.6), window=(3.3, 3.7))  # TeV
if args.file is None:
    sample = Dijets.read(Path(__file__).parent / "data" / "dijets_8k.h5")
    data, test = sample[regions.inside(sample.events.column("mjj"))], None
else:
    data = lhco(args.file, part=args.part, window=regions.window)
    test = lhco(args.file, part=args.test, window=regions.signal) if args.test else None
print(data)

# 2. A flow of four features, given the mass, as a bootstrap: its replicas differ where the sidebands leave it open.
#    More blocks are wrong in fewer places together, and take longer (docs/cathode.md).
size = {"blocks": 4, "hidden": (8,), "bins": 6} if args.quick else {"blocks": 6, "hidden": (16, 16), "bins": 8}
flow = pg.CouplingFlow(features=4, context=1, transform="rqs", mixing="random", seed=args.seed, **size)
model = pg.BayesianFlow(flow, prior_scale="fan-in", preprocessing=dijet_coordinates())
if args.quick:
    training = {"replicas": 4, "steps": 200, "batch_size": 200, "lr": 1e-2}
else:
    training = {"replicas": 6, "steps": 800, "batch_size": 512, "lr": 5e-3}
backend = pg.Bootstrap(**training, checkpoint=out / "flow.checkpoint.h5")  # a killed run goes on when repeated

# 3. The search. Every flow learns a share of the sidebands; no event is scored by a classifier that was trained on it.
if args.quick:
    options = {"ensemble": 2, "template": 2.0, "background": 4.0, "cuts": (0.3, 0.1, 0.03, 0.01), "folds": args.flows}
else:
    options = {"ensemble": 4, "background": 5.0, "folds": 2 * args.flows}
options["folds"] = max(2, options["folds"])
result = search.cathode(
    data.events,
    regions,
    model,
    mass="mjj",
    energy=13.0,
    backend=backend,
    flows=args.flows,
    seed=args.seed,
    **options,
)
print(result.text())
for k, posterior in enumerate(result.posteriors):
    posterior.save(out / f"flow{k}.h5")
figures = {
    "template": plotting.plot_template(result),
    "significance": plotting.plot_significance(result),
    "mass": plotting.plot_mass_after_cut(result),
}

# 4. Only now the labels: how much background was there, and how much better is the score than chance?
told = {"seconds": result.seconds, "settings": result.settings, "table": result.rows()}
if data.signal is not None:
    background = ~data.signal & result.sample.in_signal
    told["true_background"] = [int((background & result.passed(cut)).sum()) for cut in range(len(result.table))]
    print("true background after each cut:", *told["true_background"])
if test is not None and test.signal is not None:
    scores = result.of(test.events.select(result.sample.features.names))
    curve = search.sic_curve(scores[test.signal], scores[~test.signal])
    figures["sic"] = plotting.plot_sic({"CATHODE": curve})
    print(curve)

for name, figure in figures.items():
    plotting.save_figure(figure, out / f"{name}.png")
(out / "cathode.json").write_text(json.dumps(told, indent=1))
print(f"figures and numbers are in {out}")
