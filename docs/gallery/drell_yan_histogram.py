"""
A histogram with an error band
==============================

5,000 Drell-Yan events of Pythia 8 become the histogram of an observable with a band, and its correlations. Data and
generator then stand in one figure.
"""

import numpy as np

import pyrogen as pg
from pyrogen.plotting import plot_correlation

# %%
# Four columns describe the pair, as the transverse momenta balance.
sample = pg.events.read("../../examples/data/drell_yan_5k.h5")
print(sample.summary())

# %%
# The coordinates know what a lepton pair is: the mass has a peak, the azimuth is a circle, the beams have an energy.
variables = pg.events.lepton_pair_coordinates("mass", energy=13_000)
flow = pg.CouplingFlow(
    4, blocks=3, hidden=(24, 24), transform="rqs", mixing="random", periodic=pg.events.PERIODIC["mass"]
)
model = pg.BayesianFlow(flow, preprocessing=variables)
svi = pg.SVI(epochs=15, batch_size=250, lr=1e-2, lr_widths=5e-2, seed=0, progress=False)
posterior = svi.fit(model, sample)

# %%
# One histogram for each of 30 networks; the band is their mean and their spread. Procedure "b" generates the events
# once, and weights them by the density of each network. So the noise of the events hardly enters the band.
mass = pg.events.lepton_pair_observables()["M_pair"]
band = posterior.histogram(mass, 25, range=(75, 107), n=20_000, draws=30, procedure="b")
counts, _ = np.histogram(mass(sample), band.edges)
figure = band.plot((counts, band.edges), truth_label="Pythia 8", label="dilepton mass", unit="GeV")

# %%
# The errors of the bins are correlated. A fit needs the covariance, not the errors alone.
correlation = plot_correlation(band)
