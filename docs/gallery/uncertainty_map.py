"""
Where is the density uncertain?
===============================

A map of the density of a half ring, of its uncertainty, and of its deviation from the truth.
"""

import pyrogen as pg
from pyrogen.diagnostics import uncertainty_map
from pyrogen.plotting import plot_map

target = pg.targets.GaussianRing()
events = target.sample((10_000,))
flow = pg.CouplingFlow(2, blocks=3, hidden=(24,), transform="rqs", bins=6)
svi = pg.SVI(epochs=8, batch_size=250, lr=5e-3, lr_widths=2e-2, seed=0, progress=False)
posterior = svi.fit(pg.BayesianFlow(flow), events)

# %%
# ``uncertainty_map`` evaluates all weight draws on a grid. Columns without names are called ``x0`` and ``x1``.
plane = uncertainty_map(posterior, ("x0", -7, 7), ("x1", 0, 7), cells=60, target=target)
figure = plot_map(plane)

# %%
# Numbers for a table of your own are in the attributes, one per cell.
print(plane.density.shape, plane.relative.min(), plane.relative.max())
