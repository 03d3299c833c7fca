"""How exactly coordinates of lepton pairs lead back to four-vectors, in float64, in the peak and in the tails.

    python benchmarks/round_trip.py [--events FILE] [-n EVENTS]

Without a file it generates a million Drell-Yan events with Pythia 8. Prints the largest relative deviation of any
momentum component, and the rate both ways.
"""

from __future__ import annotations

import argparse
import time

import torch

import pyrogen as pg
from pyrogen.events import lepton_pair_coordinates


def main() -> None:
    """Both ways, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", help="file of px, py, pz of one lepton and pz of the other")
    parser.add_argument("-n", type=int, default=1_000_000, help="events (%(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    sample = pg.events.read(args.events)[: args.n] if args.events else pg.events.drell_yan(args.n)
    x = sample.tensor(torch.float64)
    for coordinates in ("mass", "log-pt"):
        for circle in (True, False):
            bijection = lepton_pair_coordinates(coordinates, circle=circle).fit(sample)
            started = time.perf_counter()
            u, log_jacobian = bijection(x)
            middle = time.perf_counter()
            back, log_inverse = bijection.inverse(u)
            seconds = middle - started, time.perf_counter() - middle
            off, log_off = ((back - x).abs() / x.abs()).max(), (log_jacobian + log_inverse).abs().max()
            print(
                f"{coordinates:7} {'circle' if circle else 'line':6} {len(x):,} events: components within "
                f"{off:.1e}, log-Jacobians {log_off:.1e}; "
                f"{len(x) / seconds[0]:,.0f} and {len(x) / seconds[1]:,.0f} events/s"
            )


if __name__ == "__main__":
    main()
