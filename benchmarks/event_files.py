"""How fast files of events are written and read, and how much memory that takes (about a minute).

python benchmarks/event_files.py

Every measurement runs in a process of its own. Memory is the highest that it reached, less what it had with pyrogen
and the events to write loaded, so writing may show none; a million events with four columns take 32 MB, a part of
65,536 events 2 MB.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pyrogen import events

EVENTS, LHE_EVENTS, PART = 1_000_000, 20_000, 65_536
FILES = {  # what to write: file and layout
    "HDF5, columns": ("a.h5", "columns"),
    "HDF5, rows": ("b.h5", "rows"),
    "ROOT": ("a.root", None),
    "npy": ("a.npy", None),
    "LHE": ("a.lhe", None),
    "LHE, gzip": ("b.lhe.gz", None),
}


def main() -> None:
    """Print one line for each format."""
    print(f"{'':14} {'size':>8}   {'write':^21}   {'write by parts':^21}   {'read':^21}   {'stream':^21}")
    print(f"{'':14} {'MB':>8}" + f"   {'events/s':>12} {'MB':>8}" * 4)
    with tempfile.TemporaryDirectory() as folder:
        for label, (name, layout) in FILES.items():
            results = {}
            for task in ("write", "parts", "read", "stream"):
                if task == "parts" and name == "a.npy":
                    continue
                command = [sys.executable, __file__, task, f"{folder}/{name}", layout or ""]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                results[task] = [float(number) for number in done.stdout.split()]
            size = (Path(folder) / name).stat().st_size / 1e6
            columns = [
                "   {:12,.0f} {:8.0f}".format(*results[task]) if task in results else f"   {'-':>12} {'-':>8}"
                for task in ("write", "parts", "read", "stream")
            ]
            print(f"{label:14} {size:8.1f}{''.join(columns)}")


def measure(task: str, path: str, layout: str | None) -> None:
    """Do one thing, and print events per second and the memory it took, in MB."""
    lhe = ".lhe" in path
    if lhe:
        import pylhe  # noqa: F401 (its time and memory shall not count)
    if path.endswith(".root"):
        import uproot  # noqa: F401
    n = LHE_EVENTS if lhe else EVENTS
    sample = make(n, lhe) if task == "write" else None
    part = make(min(PART, n), lhe) if task == "parts" else None
    before, started = memory(), time.perf_counter()
    if sample is not None:
        events.write(sample, path, layout=layout)
    elif part is not None:
        with events.EventWriter(path, layout=layout) as writer:
            for first in range(0, n, len(part)):
                writer.write(part[: n - first])
    elif task == "read":
        assert len(events.read(path)) == n
    else:
        assert sum(len(part) for part in events.stream(path)) == n
    print(n / (time.perf_counter() - started), memory() - before)


def make(n: int, lhe: bool) -> events.EventSample:
    """Random events with four columns; as momenta for LHE."""
    values = np.random.default_rng(0).normal(size=(n, 4))
    values[:, 3] = np.sqrt((values[:, :3] ** 2).sum(1))
    return events.EventSample(values, [f"{c}_e+" for c in ("px", "py", "pz", "E")] if lhe else None)


def memory() -> float:
    """The highest memory of this process until now, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3  # Linux counts in kB


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        measure(sys.argv[1], sys.argv[2], sys.argv[3] or None)
