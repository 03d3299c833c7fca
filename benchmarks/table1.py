"""Train table 1 of arXiv:2104.04543 (wedge, affine flow of 20 blocks) with given settings; print time and final ELBO.

python benchmarks/table1.py [--epochs E] [--batch-size B] [--lr LR] [--set NAME=VALUE ...] [--checkpoint FILE]

The ELBO of two trainings is compared by the loss of the last epochs, where the rate is nearly zero: its median, since
in some epochs a single event has a log density of -1e6 or less, and its error from the spread of these epochs. A killed
run with a checkpoint goes on.
"""

import argparse
import json
import statistics
import time

import torch

import pyrogen as pg


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--lr", type=float, default=1e-3, help="of the means; that of the widths is ten times as large")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="another setting of pg.SVI")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--checkpoint")
    parser.add_argument("--average", type=float, default=0.05, help="share of the epochs that the loss is taken from")
    return parser.parse_args()


def main() -> None:
    """Train and print."""
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1000 + args.seed)
    events = pg.targets.Wedge().sample((args.events,))
    fresh = pg.targets.Wedge().sample((100_000,))
    extra = {name: json.loads(value) for name, value in (item.split("=", 1) for item in args.set)}
    settings = {"epochs": args.epochs, "batch_size": args.batch_size, "lr": args.lr, "lr_widths": 10 * args.lr} | extra
    svi = pg.SVI(**settings, seed=args.seed, checkpoint=args.checkpoint, progress=False)
    wall, cpu = time.perf_counter(), time.process_time()
    posterior = svi.fit(pg.BayesianFlow(pg.CouplingFlow(2)), events)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    history = posterior.history
    last = max(1, round(args.average * args.epochs))
    middle = {name: statistics.median(history[name][-last:]) for name in ("nll", "kl", "loss")}
    deviations = [abs(loss - middle["loss"]) for loss in history["loss"][-last:]]
    error = 1.2533 * 1.4826 * statistics.median(deviations) / last**0.5  # of a median, from the median deviation
    steps = args.epochs * (args.events // args.batch_size)
    density = posterior.density(fresh, draws=20).mean
    print(f"{settings}, {args.events} events, seed {args.seed}, {args.threads} thread(s)")
    print(f"{steps} steps, wall {wall / 60:.2f} min, CPU {cpu / 60:.2f} min ({1e3 * cpu / steps:.2f} ms a step)")
    print(
        f"median of the last {last} epochs: nll {middle['nll']:.5f}, KL/N {middle['kl']:.5f}, "
        f"loss {middle['loss']:.5f} +- {error:.5f}, steps left out {sum(history['skipped_steps']):.0f}"
    )
    print(f"100,000 fresh events: -log of the predictive density {-density.log().mean():.5f}")


if __name__ == "__main__":
    main()
