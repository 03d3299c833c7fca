"""Make a file of dijets with Pythia 8 and fastjet; needs ``pip install "pyrogen[pythia,fastjet]"``.

The committed sample is what ``python examples/data/make_dijets.py`` writes with its default arguments. Its numbers are
rounded to single precision, which halves the file. For large samples take ``pyrogen.events.dijets_to``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from pyrogen.events import Dijets, EventSample, dijets
from pyrogen.files import check_writable


def main() -> None:
    parser = argparse.ArgumentParser(description="Generate dijets and a resonance, and write them to a file.")
    parser.add_argument("-n", type=int, default=8000, help="number of background events (default: %(default)s)")
    parser.add_argument("--signal", type=int, default=120, help="number of signal events (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random numbers (default: %(default)s)")
    parser.add_argument(
        "--window",
        type=float,
        nargs=2,
        default=(3.1, 3.9),
        help="lowest and highest mass of both jets in TeV (default: %(default)s)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(__file__).with_name("dijets_8k.h5"),
        help="the file, .h5 (default: %(default)s)",
    )
    arguments = parser.parse_args()

    output = check_writable(arguments.output)  # before the work, not after it
    made = dijets(arguments.n, seed=arguments.seed, signal=arguments.signal, window=tuple(arguments.window))
    events = made.events
    told = events.provenance | {"precision": "rounded to single precision"}
    rounded = Dijets(
        EventSample(events.values.astype(np.float32), events.names, events.units, provenance=told), made.signal
    )
    rounded.save(output)
    print(rounded, rounded.events.summary(), f"written to {output}", sep="\n")


if __name__ == "__main__":
    main()
