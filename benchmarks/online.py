"""Ten million events through ``SVI.fit_stream``: peak memory and events a second (some minutes on one core).

python benchmarks/online.py
python benchmarks/online.py --events 1000000
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Iterator

import torch
from torch import Tensor

import pyrogen as pg

CHUNK = 65_536


def ring(n: int) -> Iterator[Tensor]:
    """A cheap generator: a Gaussian ring, in chunks."""
    generator = torch.Generator().manual_seed(1)
    for start in range(0, n, CHUNK):
        size = min(CHUNK, n - start)
        noise = torch.randn(size, 3, generator=generator)
        direction = torch.nn.functional.normalize(noise[:, :2], dim=1)
        yield direction * (4 + noise[:, 2:])


def peak() -> float:
    """Largest memory of this process up to now, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def main() -> None:
    """Train a small flow on the stream, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    n = parser.parse_args().events
    torch.set_num_threads(1)
    model = pg.BayesianFlow(pg.CouplingFlow(2, 4, (16,)))
    before, started, cpu = peak(), time.monotonic(), time.process_time()
    svi = pg.SVI(batch_size=4096, lr=5e-3, lr_widths=2e-2, progress=False)
    posterior = svi.fit_stream(model, ring(n), buffer=100_000, passes=1)
    seconds, busy = time.monotonic() - started, time.process_time() - cpu
    told = posterior.info.details["stream"]
    print(
        f"{n:,} events, {told['steps']:,} steps: {seconds:.0f} s ({n / seconds:,.0f} events a second), {busy:.0f} s of "
        f"a core ({n / busy:,.0f} events a second); peak memory {peak():.2f} GB, {before:.2f} GB of it before; "
        f"{told['drift_alarms']} of {told['drift_windows']} drift windows raised an alarm"
    )


if __name__ == "__main__":
    main()
