"""How long it takes to start: imports, the command line of an example, and the first training of a process.

python benchmarks/startup.py [--rounds N]

Every row is a process of its own. The rows alternate, so that a noisy machine meets all of them alike. CPU time on one
thread, least and median, and its ratio to `import pyro` (of the least times, which other processes change least).
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
FIT = """
import torch, pyrogen as pg
model = pg.BayesianFlow(pg.CouplingFlow(2, blocks=1, hidden=(4,)))
{}.fit(model, torch.zeros(200, 2).uniform_(0.1, 0.9))
"""
SVI = FIT.format("pg.SVI(epochs=1, batch_size=100, progress=False)")
HMC = FIT.format("pg.HMC(chains=1, warmup=1, draws=1, start_steps=1, max_steps=1, progress=False)")
ROWS = {
    "import torch": ["-c", "import torch"],
    "import pyro": ["-c", "import pyro"],
    "import pyrogen": ["-c", "import pyrogen"],
    "import pyrogen, and its diagnostics": ["-c", "import pyrogen as pg; pg.diagnostics"],
    "import pyrogen, and its figures": ["-c", "import pyrogen as pg; pg.plotting"],
    "examples/wedge_svi.py --help": ["examples/wedge_svi.py", "--help"],
    "import pyrogen, and a tiny HMC": ["-W", "ignore", "-c", HMC],
    "import pyrogen, and a tiny SVI": ["-W", "ignore", "-c", SVI],
}


def cpu_time(arguments: list[str], environment: dict[str, str]) -> float:
    """Seconds of CPU time of a Python process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, *arguments]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as cache:
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONPYCACHEPREFIX": cache,  # compiled, as an installed package is
            "OMP_NUM_THREADS": "1",
            "MPLBACKEND": "Agg",
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        found: dict[str, list[float]] = {name: [] for name in ROWS}
        for number in range(rounds + 1):
            for name, arguments in ROWS.items():
                taken = cpu_time(arguments, environment)
                if number:  # the first round compiles
                    found[name].append(taken)
    unit = min(found["import pyro"])
    print(f"{'':40}least s  median s  ratio")
    for name, times in found.items():
        print(f"{name:40}{min(times):7.2f}{statistics.median(times):10.2f}{min(times) / unit:7.2f}")


if __name__ == "__main__":
    main()
