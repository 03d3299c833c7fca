"""
A density with its band
=======================

A Bayesian flow learns the wedge p(x, y) = 2x from 10,000 events. The figure shows the density along x with its
uncertainty, beside the truth.
"""

import pyrogen as pg
from pyrogen.diagnostics import density_along_lines
from pyrogen.plotting import plot_lines

# %%
# Events from a density that is known in closed form, so that the truth can be drawn.
target = pg.targets.Wedge()
events = target.sample((10_000,))  # [10000, 2]

# %%
# The flow maps the unit box to itself, as the edges of the wedge are known. ``prior_scale="fan-in"`` is the prior that
# suits Bernstein flows.
flow = pg.CouplingFlow(2, blocks=2, hidden=(16,), transform="bernstein", base="uniform", activation="tanh")
model = pg.BayesianFlow(flow, prior_scale="fan-in", preprocessing=None)
svi = pg.SVI(epochs=15, batch_size=500, lr=2e-2, lr_widths=1e-1, seed=0, progress=False)
posterior = svi.fit(model, events)
print(posterior)

# %%
# Left: the mean density and its band of one standard deviation, with the ratio to the truth. Middle and right: the
# relative and the absolute uncertainty. The relative one is large at small x, where there are few events.
figure = plot_lines(density_along_lines(posterior, target))
