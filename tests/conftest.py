import signal

import matplotlib
import pytest
import torch

import pyrogen as pg

matplotlib.use("Agg")
torch.set_num_threads(1)
# A shell that runs the tests in the background lets them, and what they start, ignore Ctrl-C; they need it.
for which in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(which) is signal.SIG_IGN:
        signal.signal(which, signal.default_int_handler if which == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from the same global random state, whatever ran before it."""
    torch.manual_seed(20210421)


@pytest.fixture(scope="module")
def wedge():
    """500 events of the wedge."""
    torch.manual_seed(1)
    return pg.targets.Wedge().sample((500,))
