"""What pyrogen does with damaged files: many mutants of a file of every format, read one by one.

    python benchmarks/mutants.py [--formats NAME ...] [-n MUTANTS] [--seed SEED] [--keep FOLDER]

A mutant has flipped bytes, a block of zeros or of noise, a piece missing, doubled or moved; of an HDF5 file also
objects that are gone, renamed, of another type or shape, changed in a single number, or links to somewhere else. Each
is read in a process of its own kind, with 2 GB of memory beyond what the imports take, and ten seconds. It can be

* the same: what is read equals what was written (the damage hit nothing that counts);
* refused: an error that names the file;
* different: another content without a word. No file with a checksum may ever be;
* unclear: an error without the name of the file, or of a kind that no reader expects;
* slow, large, or a crash.

Prints how many of each there are; the exit status is 1 if there is one that may not be. ``--keep`` saves those.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from damage import mutate
from torch import nn

import pyrogen as pg
from pyrogen.events import EventSample

SECONDS, MEMORY = 10.0, 2 * 2**30
SHARES = "same", "refused", "different", "unclear", "slow", "large", "crash"
Mutate = Callable[[Path, np.random.Generator], str]


# --- the files ------------------------------------------------------------------------------------------------


def _flow() -> pg.CouplingFlow:
    torch.manual_seed(1)
    return pg.CouplingFlow(2, 2, (4,))


def _events() -> torch.Tensor:
    return torch.randn(200, 2, generator=torch.Generator().manual_seed(2))


def _sample(columns: tuple[str, ...] = ("pt", "eta", "m"), extras: bool = True) -> EventSample:
    rng = np.random.default_rng(3)
    n = 400
    more: dict[str, Any] = {}
    if extras:
        more = {"uncertainties": rng.uniform(0.01, 0.1, n), "log_weights": rng.normal(size=(n, 3))}
    values = rng.normal(size=(n, len(columns)))
    return EventSample(
        values, columns, ["GeV", "", "GeV"], rng.uniform(0.5, 1.5, n), provenance={"made": "here"}, **more
    )


class Interrupted(nn.Module):
    """A flow whose training is interrupted at one of its calls."""

    at: int | None = None

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.calls = _flow(), 0

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Log density ``[N]``."""
        type(self).at = None if Interrupted.at is None else Interrupted.at - 1
        if Interrupted.at == 0:
            signal.raise_signal(signal.SIGINT)
        return self.inner.log_prob(x)

    def sample(self, n: int) -> torch.Tensor:
        """Events ``[n, 2]``."""
        return self.inner.sample(n)


def _svi(path: Path | None = None) -> pg.SVI:
    return pg.SVI(epochs=6, batch_size=100, checkpoint=path, progress=False)


def _hmc(path: Path | None = None) -> pg.HMC:
    return pg.HMC(
        chains=2,
        warmup=4,
        draws=6,
        start_steps=4,
        max_steps=4,
        checkpoint_seconds=1e-9,
        checkpoint=path,
        progress=False,
    )


def _half_a_run(path: Path, backend: Callable[[Path], Any], calls: int) -> None:
    Interrupted.at = calls
    with contextlib.suppress(KeyboardInterrupt):
        backend(path).fit(pg.BayesianFlow(Interrupted()), _events())
    Interrupted.at = None
    assert path.exists(), "the run left no checkpoint when it was interrupted"


def _foreign_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["table"] = _sample().values


def _lhe(path: Path) -> None:
    rows = "".join(
        f"<event>\n 2 1 {1 + i % 3}.5 91.2 0.0078 0.118\n"
        f" 11 1 1 1 0 0 {i}.25 3.5 -{i}.125 {np.hypot(np.hypot(i + 0.25, 3.5), i + 0.125):.10f} 0 0 9\n"
        f" -11 1 1 1 0 0 -{i}.25 -3.5 12.5 {np.hypot(np.hypot(i + 0.25, 3.5), 12.5):.10f} 0 0 9\n</event>\n"
        for i in range(100)
    )
    text = (
        '<LesHouchesEvents version="3.0">\n<header>\n</header>\n<init>\n'
        " 2212 2212 6500 6500 0 0 247000 247000 3 1\n 2.5 0.1 2.5 1\n</init>\n" + rows + "</LesHouchesEvents>\n"
    )
    path.write_bytes(gzip.compress(text.encode(), mtime=0) if path.suffix == ".gz" else text.encode())


# --- what is read from them, as a digest ----------------------------------------------------------------------


def _hash(*parts: Any) -> str:
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, torch.Tensor):
            part = part.detach().cpu().numpy()
        if isinstance(part, np.ndarray):
            found.update(f"{part.dtype} {part.shape}".encode() + np.ascontiguousarray(part).tobytes())
        else:
            found.update(json.dumps(part, sort_keys=True, default=str).encode())
    return found.hexdigest()


def _posterior_hash(posterior: pg.Posterior, seconds: bool = True) -> str:
    arrays = [posterior.weights.arrays[name] for name in sorted(posterior.weights.arrays)]
    names = [name for name in sorted(posterior.history) if seconds or name != "seconds"]
    info = posterior.info.to_json()
    if not seconds:
        info.pop("seconds", None)
    model = posterior.model
    buffers = [model.flow_buffers()[name] for name in sorted(model.flow_buffers())]
    curves = [np.asarray(posterior.history[name]) for name in names]
    return _hash(info, model.describe(), names, *arrays, *curves, *buffers, model.initial_theta)


def _read_posterior(path: Path) -> str:
    return _posterior_hash(pg.load(path))


def _read_events(path: Path) -> str:
    sample = pg.events.read(path)
    extras = [sample.weights, sample.uncertainties, sample.log_weights]
    # Where a file tells its own name it is not the damage.
    provenance = {key: value for key, value in sample.provenance.items() if key != "file"}
    return _hash(
        sample.values, sample.names, sample.units, provenance, *(extra for extra in extras if extra is not None)
    )


def _resume(backend: Callable[[Path], Any]) -> Callable[[Path], str]:
    return lambda path: _posterior_hash(backend(path).fit(pg.BayesianFlow(Interrupted()), _events()), seconds=False)


@dataclass(frozen=True)
class Kind:
    """A format: how a file of it is made and read, and whether a checksum protects all of it."""

    suffix: str
    make: Callable[[Path], Any]
    read: Callable[[Path], str]
    protected: bool
    beside: str | None = None  # suffix of a second file that is mutated in its place


KINDS = {
    "posterior": Kind(
        ".h5", lambda path: _svi().fit(pg.BayesianFlow(_flow()), _events()).save(path), _read_posterior, True
    ),
    "posterior of draws": Kind(
        ".h5", lambda path: _hmc().fit(pg.BayesianFlow(_flow()), _events()).save(path), _read_posterior, True
    ),
    "checkpoint of SVI": Kind(".h5", lambda path: _half_a_run(path, _svi, 12), _resume(_svi), True),
    "checkpoint of HMC": Kind(".h5", lambda path: _half_a_run(path, _hmc, 40), _resume(_hmc), True),
    "draws of HMC": Kind(".h5", lambda path: _half_a_run(path, _hmc, 40), _resume(_hmc), True, ".draws.h5"),
    "events, columns": Kind(".h5", lambda path: _sample().save(path), _read_events, True),
    "events, rows": Kind(".h5", lambda path: _sample().save(path, layout="rows"), _read_events, True),
    "a user's HDF5": Kind(".h5", _foreign_hdf5, _read_events, False),
    "ROOT": Kind(".root", lambda path: _sample().save(path), _read_events, False),
    "npy": Kind(".npy", lambda path: np.save(path, _sample().values), _read_events, False),
    "LHE": Kind(".lhe", _lhe, _read_events, False),
    "LHE, gzipped": Kind(".lhe.gz", _lhe, _read_events, True),
}


# --- reading them ---------------------------------------------------------------------------------------------


def _reader(connection: Any) -> None:
    """Reads files on demand, in a process that may be killed."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    connection.send(None)
    while True:
        kind, path = connection.recv()
        names = path.name, path.parent.name
        try:
            connection.send(("read", KINDS[kind].read(path)))
        except MemoryError as error:
            connection.send(("large", str(error)))
        except (ValueError, OSError) as error:
            told = "refused" if any(name in str(error) for name in names) else "unclear"
            connection.send((told, f"{type(error).__name__}: {error}"))
        except BaseException as error:
            connection.send(("unclear", f"{type(error).__name__}: {error}"))


class Reader:
    """A process that reads files; another takes its place when it is lost."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch", "pyrogen"])  # imported once, and not by every reader
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_reader, args=(other,), daemon=True)
        self._process.start()
        other.close()
        self._connection.recv()

    def __call__(self, kind: str, path: Path) -> tuple[str, str]:
        """``(what happened, digest or words)``."""
        try:
            self._connection.send((kind, path))
            if self._connection.poll(SECONDS):
                return self._connection.recv()
            outcome = "slow", f"no answer in {SECONDS:g} s"
        except (EOFError, OSError):
            outcome = "crash", "the process is gone"
        self.stop()
        self._start()
        return outcome

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._connection.close()


def try_format(
    kind: str, mutants: int, seed: int, keep: Path | None = None
) -> tuple[Counter[str], list[tuple[int, str, str, str]]]:
    """Read so many mutants of a format.

    Returns:
        How many there were of each outcome, and those that may not be: number, damage, outcome, words.
    """
    which, counts, bad = KINDS[kind], Counter[str](), []
    reader = Reader()
    try:
        with tempfile.TemporaryDirectory() as folder:
            whole, work = Path(folder, "whole"), Path(folder, "work")
            whole.mkdir()
            which.make(whole / f"file{which.suffix}")
            shutil.copytree(whole, work)
            outcome, expected = reader(kind, work / f"file{which.suffix}")
            if outcome != "read":
                raise RuntimeError(f"the whole file of {kind} cannot be read: {expected}")
            for number in range(mutants):
                shutil.rmtree(work)
                shutil.copytree(whole, work)
                path = work / f"file{which.suffix}"
                rng = np.random.default_rng([seed, *kind.encode(), number])
                target = work / f"file{which.beside}" if which.beside else path
                damage, noticeable = mutate(target, rng)
                damaged = target.read_bytes()
                outcome, words = reader(kind, path)
                if outcome == "read":
                    outcome = "same" if words == expected else "different"
                counts[outcome] += 1
                may = {"same", "refused"} | ({"different"} if not (which.protected and noticeable) else set())
                if outcome not in may:
                    bad.append((number, damage, outcome, words))
                    if keep is not None:
                        keep.mkdir(exist_ok=True)
                        (keep / f"{kind.replace(' ', '_')}_{number}{target.suffix}").write_bytes(damaged)
    finally:
        reader.stop()
    return counts, bad


def main() -> int:
    """All formats, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--formats", nargs="+", choices=KINDS, default=list(KINDS), metavar="NAME", help=", ".join(KINDS)
    )
    parser.add_argument("-n", type=int, default=3000, help="mutants of each format (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for mutants that were not treated as they should be")
    args = parser.parse_args()
    print(f"{'':20}" + "".join(f"{share:>10}" for share in SHARES) + f"{'s':>8}")
    faults = 0
    for kind in args.formats:
        started = time.perf_counter()
        counts, bad = try_format(kind, args.n, args.seed, args.keep)
        row = "".join(f"{counts[share]:10,}" for share in SHARES)
        print(f"{kind:20}{row}{time.perf_counter() - started:8.0f}", flush=True)
        for number, damage, outcome, words in bad[:20]:
            print(f"    mutant {number} ({damage}): {outcome}: {words[:300]}", flush=True)
        faults += len(bad)
    print(f"{faults} that may not be" if faults else "none that may not be")
    return faults > 0


if __name__ == "__main__":
    sys.exit(main())
