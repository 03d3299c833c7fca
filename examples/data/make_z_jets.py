"""Make a file of Z + jets events with Pythia 8 and fastjet; needs ``pip install "pyrogen[pythia,fastjet]"``.

The committed sample is what ``python examples/data/make_z_jets.py`` writes with its default arguments. Its numbers are
rounded to single precision, which halves the file. For large samples take ``pyrogen.events.z_jets_to``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from pyrogen.events import EventSample, z_jets
from pyrogen.files import check_writable


def main() -> None:
    parser = argparse.ArgumentParser(description="Generate Z + jets events and write them to a file.")
    parser.add_argument("-n", type=int, default=5000, help="number of events (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random numbers (default: %(default)s)")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(__file__).with_name("z_jets_5k.h5"),
        help="the file, .h5 (default: %(default)s)",
    )
    arguments = parser.parse_args()

    output = check_writable(arguments.output)  # before the work, not after it
    sample = z_jets(arguments.n, seed=arguments.seed)
    told = sample.provenance | {"precision": "rounded to single precision"}
    rounded = EventSample(
        sample.values.astype(np.float32), sample.names, sample.units, provenance=told, multiplicity=sample.multiplicity
    )
    rounded.save(output)
    print(rounded.summary())
    for jets, (cross_section, error) in told["cross_sections_pb"].items():
        print(f"{jets} jets: {cross_section:.1f} ± {error:.1f} pb")
    print(f"written to {output}")


if __name__ == "__main__":
    main()
