"""Builds sdist and wheel, installs the wheel in a fresh environment, and uses it there; run by `tox -e package`.

    python tests/package.py FOLDER

FOLDER is made anew. Needs the package `build`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: What the sdist must hold beside the package: who builds from it needs these.
SHIPPED = ("LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "constraints.txt", "setup.cfg", "pyproject.toml")
USE = """
import importlib.metadata, pathlib, sys
import pyrogen as pg

assert pathlib.Path(pg.__file__).is_relative_to(sys.prefix), pg.__file__
assert importlib.metadata.version("pyrogen") == pg.__version__
assert (pathlib.Path(pg.__file__).parent / "py.typed").exists()
events = pg.targets.Wedge().sample((500,))
model = pg.BayesianFlow(pg.CouplingFlow(2, blocks=2, hidden=(4,)))
posterior = pg.SVI(epochs=2, batch_size=100, progress=False).fit(model, events)
posterior.save("posterior.h5")
same = pg.load("posterior.h5").log_prob(events[:5]) == posterior.log_prob(events[:5])
assert same.all()
print("pyrogen", pg.__version__, "fits, saves and loads")
"""


def main(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "build", "--outdir", folder / "dist", ROOT], check=True)
    (sdist,), (wheel,) = (list((folder / "dist").glob(kind)) for kind in ("*.tar.gz", "*.whl"))
    check_contents(sdist, wheel)
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel], check=True)
    subprocess.run([python, "-m", "pip", "check"], check=True)
    quiet = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PYTHONWARNINGS": "ignore"}
    subprocess.run([python, "-c", USE], check=True, cwd=folder, env=quiet)
    for command in ([python.with_name("pyrogen")], [python, "-m", "pyrogen"]):
        subprocess.run([*command, "--version"], check=True, cwd=folder, env=quiet)


def check_contents(sdist: Path, wheel: Path) -> None:
    """Every Python file of the package is in both, and nothing else than the package is in the wheel."""
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "pyrogen").rglob("*.py")}
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    foreign = {name for name in inside if not name.startswith(("pyrogen/", "pyrogen-"))}
    with tarfile.open(sdist) as archive:
        shipped = {name.partition("/")[2] for name in archive.getnames()}
    problems = [
        *(f"{wheel.name} lacks {name}" for name in sorted({*sources, "pyrogen/py.typed"} - inside)),
        *(f"{wheel.name} holds {name}" for name in sorted(foreign)),
        *(f"{sdist.name} lacks {name}" for name in sorted({*sources, *SHIPPED} - shipped)),
    ]
    if problems:
        raise SystemExit("\n".join(problems))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
