"""
Three backends, one model
=========================

The same flow and the same 1,000 events, with three ways to find the posterior: variational inference, Hamiltonian Monte
Carlo, and the bootstrap. One line changes.
"""

import pyrogen as pg
from pyrogen.diagnostics import density_along_lines
from pyrogen.plotting import plot_lines

target = pg.targets.Wedge()
events = target.sample((1_000,))
flow = pg.CouplingFlow(2, blocks=2, hidden=(8,), transform="bernstein", base="uniform", bins=4, activation="tanh")
model = pg.BayesianFlow(flow, prior_scale="fan-in", preprocessing=None)

backends = {
    "SVI": pg.SVI(epochs=50, batch_size=250, lr=1e-2, lr_widths=5e-2, seed=0, progress=False),
    "HMC": pg.HMC(chains=2, warmup=40, draws=40, max_steps=12, seed=0, progress=False),
    "Bootstrap": pg.Bootstrap(replicas=12, steps=200, batch_size=250, lr=2e-2, seed=0, progress=False),
}
posteriors = {name: backend.fit(model, events) for name, backend in backends.items()}

# %%
# The means agree. The bands do not: mean-field SVI is too wide for a flow of so few weights.
for name, posterior in posteriors.items():
    relative = posterior.density([[0.2, 0.5], [0.5, 0.5], [0.9, 0.5]]).relative
    print(f"{name:10} sigma / p at x = 0.2, 0.5, 0.9:", *(f"{float(value):.1%}" for value in relative))

# %%
# The band of HMC:
figure = plot_lines(density_along_lines(posteriors["HMC"], target))
