"""What `import pyrogen` imports, and what it leaves for later: rooms and packages that no fit needs."""

import os
import subprocess
import sys

import pytest

#: Packages that took most of the time. The last two torch imports when its first optimizer is made.
LATE = (
    *("scipy", "matplotlib", "arviz", "xarray", "pandas", "pyarrow", "uproot", "awkward", "pythia8mc", "fastjet"),
    *("hist", "iminuit", "sympy", "torch._dynamo", "jsonargparse", "yaml"),
)


def run(script):
    """The lines that a script prints in a process of its own, where nothing is imported yet."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


SMALL = """
import os, signal, sys
import torch, pyro

class CtrlC:
    def find_spec(self, name, path, target=None):
        if name == "matplotlib.transforms":
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

before = set(sys.modules)
import pyrogen as pg
new = set(sys.modules) - before
print(*sorted({name.partition(".")[0] for name in new} & {*LATE} | new & {*LATE}), sep=",")
print("pyrogen.diagnostics" in new, "pyrogen.plotting" in new)
print({"diagnostics", "plotting", "to_inference_data", "SVI"} <= {*dir(pg)})
try:
    pg.diagnostic
except AttributeError as error:
    print(error)
target = pg.targets.Wedge()
flow = pg.CouplingFlow(2, blocks=1, hidden=(4,))
for backend in (
    pg.HMC(chains=1, warmup=1, draws=2, start_steps=1, max_steps=2, progress=False),
    pg.SVI(epochs=1, batch_size=50, progress=False),
):
    backend.fit(pg.BayesianFlow(flow), target.sample((100,))).density(target.sample((5,)))
print(*sorted({*LATE} & {*sys.modules}), sep=",")
sys.stdout.flush()
child = os.fork()  # a process in which it begins here
if child == 0:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.meta_path.insert(0, CtrlC())
    try:
        pg.plotting
    except KeyboardInterrupt:
        print("stopped")
    print(pg.plotting.plot_lines.__name__, flush=True)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
from pyrogen import *
print(diagnostics is pg.diagnostics is sys.modules["pyrogen.diagnostics"])
print(to_inference_data is pg.diagnostics.to_inference_data)
print("matplotlib" in sys.modules, pg.plotting.plot_lines.__name__, "matplotlib" in sys.modules)
"""


@pytest.fixture(scope="module")
def lines():
    return run(f"LATE = {LATE}\n{SMALL}")


def test_import_leaves_for_later_what_no_fit_needs(lines):
    assert lines[:5] == ["", "False False", "True", "module 'pyrogen' has no attribute 'diagnostic'", ""]
    assert lines[-3:] == ["True", "True", "False plot_lines True"]


def test_ctrl_c_in_a_late_import_leaves_it_whole(lines):
    """Matplotlib, xarray, uproot and others could not be imported in the same process any more."""
    assert lines[5:-3] == ["stopped", "plot_lines", "0"]
