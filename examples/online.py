"""What is an event worth that is seen once? Online training against stored events, on toys and on Drell-Yan.

    python examples/online.py                     # wedge and ring, 160,000 events each (some minutes)
    python examples/online.py --toy drell-yan     # 80,000 Drell-Yan events from Pythia 8 (extra "pythia")
    python examples/online.py --quick             # a few thousand, in half a minute

Three trainings of the same flow: online (every event while it is in a buffer, and never again), offline on all events,
and offline on a stored subset as large as the buffer (OnlineFlow, arXiv:2202.09375, asks which is worth more). For the
toys: the median relative error of the density at true events, its sigma, and the divergence KL(true || learned). For
Drell-Yan nobody knows the density: error and sigma are those of the bins of three histograms, beside held-out events.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

import pyrogen as pg

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="few events, small flows: to see that it runs")
parser.add_argument("--toy", choices=("wedge", "ring", "drell-yan"), help="one of them (wedge and ring)")
parser.add_argument("--seed", type=int, default=0, help="seed of events and trainings (0)")
parser.add_argument("--out", type=Path, default=Path("results/online"), help="folder for the results (results/online)")
args = parser.parse_args()
args.out.mkdir(parents=True, exist_ok=True)
pg.set_threads(1)  # the same bits every time
quick, draws = args.quick, 30


def toy(target, n):
    """Events of a toy, a flow for them, and what judges a training: error and sigma of the density at true events."""
    torch.manual_seed(args.seed)
    events, test = target.sample((n,)), target.sample((10_000,))

    def judge(posterior):
        estimate, true = posterior.density(test, draws), target.log_prob(test).double()
        ratio = estimate.mean / true.exp()
        return {
            "error": float((ratio - 1).abs().median()),
            "sigma": float(estimate.relative.median()),
            "divergence": float(-ratio.log().mean()),
        }

    size = {"blocks": 2, "hidden": (8,)} if quick else {"blocks": 6, "hidden": (32, 32)}
    return events, pg.BayesianFlow(pg.CouplingFlow(2, **size)), judge


def drell_yan(n):
    """The same for Drell-Yan: root mean squares of error and sigma over the bins of three histograms."""
    if quick:
        sample = pg.events.read(Path(__file__).parent / "data" / "drell_yan_5k.h5")
        events, test, generated = sample[:n], sample[n:], 2_000
    else:
        events, test = (pg.events.drell_yan(size, seed=1 + 2 * args.seed + i) for i, size in enumerate((n, 100_000)))
        generated = 40_000
    # Limits for all events to come: a preprocessing is fitted to the first buffer alone.
    coordinates = pg.events.lepton_pair_coordinates("mass", energy=13_000.0, mass_low=50.0)
    size = {"blocks": 2, "hidden": (8,)} if quick else {"blocks": 4, "hidden": (32, 32), "bins": 8}
    flow = pg.CouplingFlow(4, transform="rqs", mixing="random", periodic=pg.events.PERIODIC["mass"], **size)
    books, true, bins = {}, {}, 16  # every bin has as many held-out events
    for name in ("M_pair", "pT", "eta"):
        observable = pg.events.lepton_pair_observables()[name]
        values = observable(test).double().numpy()
        edges = np.quantile(values, np.linspace(0, 1, bins + 1))
        books[name], true[name] = (observable, edges), np.histogram(values, edges)[0] / len(values)
    true = {
        name: np.histogram(its(test).double().numpy(), edges)[0] / len(test) for name, (its, edges) in books.items()
    }
    noise = bins * (1 / len(test) + 1 / generated)  # relative variance of the ratio in a bin, of the events alone

    def judge(posterior):
        bands = posterior.histograms(books, n=generated, draws=draws, procedure="b")
        off = np.concatenate([bands[name].mean / true[name] - 1 for name in books])
        sigma = np.concatenate([bands[name].sigma() / bands[name].mean for name in books])
        return {"error": max(np.mean(off**2) - noise, 0.0) ** 0.5, "sigma": np.mean(sigma**2) ** 0.5}

    return events, pg.BayesianFlow(flow, preprocessing=coordinates), judge


summary = {}
for name in [args.toy] if args.toy else ["wedge", "ring"]:
    # 1. Events, a flow, and what tells how good a training is. Every offline training has the same number of steps.
    if quick:
        n, buffer, passes, sizes, steps, batch = 4_000, 1_000, 2, (1_000, 4_000), 80, 50
    elif name == "drell-yan":
        n, buffer, passes, sizes, steps, batch = 80_000, 10_000, 5, (10_000, 80_000), 800, 512
    else:
        n, buffer, passes, sizes, steps, batch = 160_000, 10_000, 5, (10_000, 40_000, 160_000), 2_000, 512
    target = {"wedge": pg.targets.Wedge(), "ring": pg.targets.GaussianRing()}.get(name)
    events, model, judge = toy(target, n) if target else drell_yan(n)
    settings = {"batch_size": batch, "seed": args.seed, "lr": 2e-3, "lr_widths": 2e-2}
    rows = {"online": [], "offline": [], "subset": []}

    # 2. Online: batches come as a generator makes them; each event is used while it is in the buffer, then forgotten.
    stream = (events[first : first + 50_000] for first in range(0, n, 50_000))
    svi = pg.SVI(**settings, checkpoint=args.out / f"{name}_online.h5")
    posterior = svi.fit_stream(model, stream, buffer=buffer, passes=passes)
    for seen in sorted({*posterior.snapshots, n}):
        rows["online"].append({"events": seen} | judge(posterior.at(seen)))

    # 3. Offline, on stored events. The smallest one is the subset that fits into the buffer: it stays as good as it is.
    for size in sizes:
        epochs = max(1, round(steps * batch / size))
        svi = pg.SVI(**settings, epochs=epochs, checkpoint=args.out / f"{name}_{size}.h5")
        rows["offline"].append({"events": size} | judge(svi.fit(model, events[:size])))
    rows["subset"] = [rows["offline"][0], rows["offline"][0] | {"events": n}]

    # 4. A table and a figure: where does the online curve cross that of the subset?
    print(f"{name}\ntraining      events     error   sigma" + "   KL [nats]" * (name != "drell-yan"))
    for way, its in rows.items():
        for row in its:
            line = f"{way:8} {row['events']:11,.0f} {row['error']:9.4f} {row['sigma']:7.4f}"
            print(line + (f" {row['divergence']:11.4f}" if "divergence" in row else ""))
    summary[name] = {way: {key: [row[key] for row in its] for key in its[0]} for way, its in rows.items()}
    figure = pg.plotting.plot_online(summary[name], title=name, of="bins" if name == "drell-yan" else "density")
    print(f"wrote {pg.plotting.save_figure(figure, args.out / f'online_{name}.png')}\n", flush=True)
(args.out / "summary.json").write_text(json.dumps(summary, indent=1))
