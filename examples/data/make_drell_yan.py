"""Make a file of Drell-Yan events with Pythia 8; needs ``pip install "pyrogen[pythia]"``.

The committed sample is what ``python examples/data/make_drell_yan.py`` writes with its default arguments.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pyrogen.events import drell_yan
from pyrogen.files import check_writable


def main() -> None:
    parser = argparse.ArgumentParser(description="Generate Drell-Yan events with Pythia 8 and write them to a file.")
    parser.add_argument("-n", type=int, default=5000, help="number of events (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of Pythia's random numbers (default: %(default)s)")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(__file__).with_name("drell_yan_5k.h5"),
        help="the file, .h5 or .npy (default: %(default)s)",
    )
    arguments = parser.parse_args()

    output = check_writable(arguments.output)  # before the work, not after it
    sample = drell_yan(arguments.n, seed=arguments.seed)
    sample.save(output)
    print(sample.summary())
    print(
        f"cross section {sample.provenance['cross_section_pb']:.1f} "
        f"± {sample.provenance['cross_section_error_pb']:.1f} pb, written to {output}"
    )


if __name__ == "__main__":
    main()
