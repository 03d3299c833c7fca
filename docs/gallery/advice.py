"""
Is the training done?
=====================

A training that was too short, and what pyrogen says about it.
"""

import pyrogen as pg
from pyrogen.plotting import plot_training

target = pg.targets.Kicker()
events = target.sample((5_000,))
flow = pg.CouplingFlow(2, blocks=2, hidden=(12,), transform="bernstein", base="uniform", activation="tanh")
model = pg.BayesianFlow(flow, prior_scale="fan-in", preprocessing=None)

short = pg.SVI(epochs=4, batch_size=500, lr=5e-3, seed=0, progress=False).fit(model, events)
print(pg.diagnostics.advise(short, events, support=target).text())

# %%
# The loss, its two parts and the learning rate over the epochs.
figure = plot_training(short.history)

# %%
# A longer run goes on from the short one.
svi = pg.SVI(epochs=40, batch_size=500, lr=2e-2, lr_widths=1e-1, widths_after=0, seed=0, progress=False)
longer = svi.fit(model, events, start=short)
print(pg.diagnostics.advise(longer, events, support=target).text())

# %%
# What each run found wrong with itself is also an attribute:
print([finding.problem for finding in longer.info.findings])
