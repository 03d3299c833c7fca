"""What a kill leaves behind: every long operation, killed before each change that it makes to its folder.

    python benchmarks/kills.py [--operations NAME ...] [--stride K]

Each operation is killed before its first opening, renaming, removal or making of a file or folder, then in a new folder
before its second, and so on, and in the middle of writes (a limit on the size of files, from a few hundred bytes on).
After every kill a file of the operation is either the old one or the new one, never anything else; and the operation,
repeated, ends with the same bits as one that nobody killed, and with no other file left in the folder. The same is done
with a full disk in place of the kill: there the operation has to say so.

Prints how many kills there were of each operation; the exit status is 1 if one went wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pyrogen as pg
from pyrogen.events import EventSample, EventWriter

CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
KILLED, RIGHT, WRONG, FULL, QUIET = 9, 0, 1, 3, 4
SIZES = [200 * 2**k for k in range(0, 12)]


def _flow() -> pg.BayesianFlow:
    torch.manual_seed(1)
    return pg.BayesianFlow(pg.CouplingFlow(2, 2, (4,)))


def _training() -> torch.Tensor:
    return torch.randn(120, 2, generator=torch.Generator().manual_seed(2))


def _sample(seed: int = 0) -> EventSample:
    rng = np.random.default_rng(seed)
    return EventSample(rng.normal(size=(2000, 3)), weights=rng.uniform(0.5, 1.5, 2000))


def _posterior() -> pg.Posterior:
    weights = pg.posterior.StoredDraws(
        0.3 * torch.randn(1, 8, _flow().weights, generator=torch.Generator().manual_seed(3))
    )
    model = _flow().prepare(_training().double())
    return pg.Posterior(model, weights, progress=False)


def _fit(folder: Path, backend: Any) -> None:
    backend.fit(_flow(), _training()).save(folder / "posterior.h5")


def _write(folder: Path, name: str, **options: Any) -> None:
    with EventWriter(folder / name, **options) as writer:
        for seed in (1, 2):
            writer.write(_sample(seed))


def _generate(folder: Path) -> None:
    _posterior().generate_to(folder / "events.h5", 64, 8, chunk=16, log_weights=True)


@dataclass(frozen=True)
class Operation:
    """What is killed.

    Args:
        work: does it all in a folder; again, it goes on.
        before: prepares the folder.
    """

    work: Callable[[Path], Any]
    before: Callable[[Path], Any] | None = None


def _often(path: Path) -> dict[str, Any]:
    """Settings of a short run of a sampler, with a checkpoint after every piece of work."""
    return {"start_steps": 2, "checkpoint": path, "checkpoint_seconds": 1e-9, "progress": False}


def _with_checkpoint(make: Callable[[Path], Any]) -> Operation:
    return Operation(lambda folder: _fit(folder, make(folder / "run.h5")))


def _old_sample(name: str) -> Callable[[Path], None]:
    return lambda folder: _sample().save(folder / name)


OPERATIONS = {
    "save a posterior": Operation(
        lambda folder: _posterior().save(folder / "posterior.h5"),
        lambda folder: pg.Posterior(
            _flow().prepare(_training().double()), pg.posterior.Point(loc=_flow().initial_theta)
        ).save(folder / "posterior.h5"),
    ),
    "write .h5": Operation(lambda folder: _write(folder, "a.h5"), _old_sample("a.h5")),
    "write .h5 in rows": Operation(lambda folder: _write(folder, "a.h5", layout="rows"), _old_sample("a.h5")),
    "write .npy": Operation(lambda folder: EventSample(_sample(1).values).save(folder / "a.npy")),
    "write .root": Operation(lambda folder: _write(folder, "a.root"), _old_sample("a.root")),
    "generate to a file": Operation(_generate),
    "SVI": _with_checkpoint(lambda path: pg.SVI(epochs=2, batch_size=60, checkpoint=path, progress=False)),
    "HMC": _with_checkpoint(lambda path: pg.HMC(chains=2, warmup=3, draws=2, max_steps=3, **_often(path))),
    "NUTS": _with_checkpoint(lambda path: pg.NUTS(chains=1, warmup=2, draws=2, max_tree_depth=2, **_often(path))),
    "SGLD": _with_checkpoint(lambda path: pg.SGLD(chains=2, warmup=4, draws=2, thinning=2, **_often(path))),
    "Ensemble": _with_checkpoint(
        lambda path: pg.Ensemble(members=2, steps=4, checkpoint_seconds=1e-9, checkpoint=path, progress=False)
    ),
    "Laplace": _with_checkpoint(
        lambda path: pg.Laplace(steps=4, polish=2, checkpoint_seconds=1e-9, checkpoint=path, progress=False)
    ),
}


def _content(folder: Path) -> dict[str, str]:
    """Digests of what is read from the files of a folder, by name: times and clocks do not count."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() or path.name.endswith(".lock"):
            continue
        if name == "posterior.h5":
            arrays = [array.numpy() for array in pg.load(path).weights.arrays.values()]
        elif name in ("a.h5", "a.npy", "a.root", "events.h5"):
            sample = pg.events.read(path)
            extras = (sample.weights, sample.uncertainties, sample.log_weights)
            arrays = [sample.values, *(extra for extra in extras if extra is not None)]
        else:
            arrays = []
        found[name] = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
    return found


def _forked(work: Callable[[], int]) -> int:
    """Run in a process of its own; its exit status, KILLED where a signal ended it."""
    child = os.fork()
    if child == 0:
        status = WRONG
        try:
            status = work()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    status = os.waitpid(child, 0)[1]
    return KILLED if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _killed_at(change: int, folder: Path) -> None:
    """From now on the process dies before so many changes in a folder."""
    left = [change]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in CHANGES or not arguments or not isinstance(arguments[0], (str, bytes, os.PathLike)):
            return
        if str(folder) in os.fsdecode(arguments[0]):
            if left[0] == 0:
                os._exit(KILLED)
            left[0] -= 1

    sys.addaudithook(hook)


def _limit(size: int, kill: bool) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL if kill else signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def _done(work: Callable[[Path], Any], folder: Path, arm: Callable[[], None] = lambda: None, full: bool = False) -> int:
    def inside() -> int:
        arm()
        try:
            work(folder)
        except OSError as error:
            if not full:
                raise
            return FULL if str(folder) in str(error) else WRONG
        return RIGHT

    return _forked(inside)


def kill_everywhere(name: str, stride: int = 1, sizes: Sequence[int] = SIZES) -> Iterator[tuple[str, str | None]]:
    """Kill an operation at all moments, one after another.

    Args:
        name: of the operation.
        stride: kill before every so many changes.
        sizes: limits on the size of files.

    Yields:
        The moment, and what went wrong there, or None.
    """
    operation = OPERATIONS[name]
    with tempfile.TemporaryDirectory() as place:
        template, folder = Path(place, "template"), Path(place, "folder")
        template.mkdir()
        if operation.before is not None and _done(operation.before, template):
            raise RuntimeError(f"{name}: its folder could not be prepared")
        old = _in_fork(_content, template)
        shutil.copytree(template, folder)
        if _done(operation.work, folder):
            raise RuntimeError(f"{name} fails without a kill")
        new = _in_fork(_content, folder)

        def moment(arm: Callable[[], None], full: bool = False) -> tuple[int, str | None]:
            shutil.rmtree(folder)
            shutil.copytree(template, folder)
            status = _done(operation.work, folder, arm, full)
            if status == RIGHT:
                return status, None if _in_fork(_content, folder) == new else "it ended with another content"
            if status == WRONG:
                return status, "it failed with another error"
            problem = _half(_in_fork(_content, folder, True), old, new)
            if problem is None and (again := _done(operation.work, folder)):
                problem = f"it cannot be repeated (status {again})"
            if problem is None and (found := _in_fork(_content, folder)) != new:
                problem = f"repeated, it has other results: {_differ(found, new)}"
            return status, problem

        change = 0
        while True:
            status, problem = moment(lambda: _killed_at(change, folder))  # noqa: B023 (called at once)
            if status == RIGHT and problem is None:
                break
            yield f"before change {change}", problem
            if status == RIGHT:
                break
            change += stride
        for full in (False, True):
            for size in sizes:
                status, problem = moment(lambda: _limit(size, not full), full)  # noqa: B023 (called at once)
                if status == RIGHT and problem is None:
                    break
                yield f"{'disk full' if full else 'killed'} at {size} bytes", problem


def _in_fork(function: Callable[..., Any], folder: Path, half: bool = False) -> Any:
    """What a function of a folder gives, found in a process of its own: HDF5 keeps no file of ours open."""
    reading, writing = os.pipe()

    def work() -> int:
        try:
            found = function(folder)
        except (OSError, ValueError) as error:
            if not half:
                raise
            found = {"unreadable": str(error)}
        with os.fdopen(writing, "w") as stream:
            json.dump(found, stream)
        return RIGHT

    status = _forked(work)  # what it says fits into the pipe
    os.close(writing)
    with os.fdopen(reading) as stream:
        content = stream.read()
    return json.loads(content) if status == RIGHT else {"unreadable": "see above"}


def _half(found: dict[str, str], old: dict[str, str], new: dict[str, str]) -> str | None:
    """What is wrong with the content of a folder after a kill."""
    if "unreadable" in found:
        return f"a file cannot be read: {found['unreadable']}"
    for name, content in found.items():
        wanted = [known[name] for known in (old, new) if name in known]
        if wanted and content not in wanted:
            return f"{name} is neither the old nor the new file"
    lost = old.keys() - found.keys()
    return f"the old {', '.join(lost)} is gone" if lost else None


def _differ(found: dict[str, str], wanted: dict[str, str]) -> str:
    missing, more = wanted.keys() - found.keys(), found.keys() - wanted.keys()
    other = [name for name in found.keys() & wanted.keys() if found[name] != wanted[name]]
    return f"missing {sorted(missing)}, left over {sorted(more)}, other content {sorted(other)}"


def main() -> int:
    """All operations, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--operations",
        nargs="+",
        choices=OPERATIONS,
        default=list(OPERATIONS),
        metavar="NAME",
        help=", ".join(OPERATIONS),
    )
    parser.add_argument("--stride", type=int, default=1, help="kill before every K-th change only")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    _fit(Path(tempfile.mkdtemp()), pg.SVI(epochs=1, progress=False))  # imports
    faults = 0
    for name in args.operations:
        started = time.perf_counter()
        moments = list(kill_everywhere(name, args.stride))
        bad = [(moment, problem) for moment, problem in moments if problem is not None]
        print(f"{name:20} {len(moments):4} kills, {len(bad)} wrong, {time.perf_counter() - started:.0f} s", flush=True)
        for moment, problem in bad[:20]:
            print(f"    {moment}: {problem}", flush=True)
        faults += len(bad)
    print(f"{faults} that may not be" if faults else "none that may not be")
    return faults > 0


if __name__ == "__main__":
    sys.exit(main())
