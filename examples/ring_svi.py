"""The Gaussian half ring of arXiv:2104.04543, sec. 3.3: a Bayesian flow trained by SVI, checked with the truth.

python examples/ring_svi.py --quick
"""

import toy

import pyrogen as pg

if __name__ == "__main__":
    toy.run("ring_svi", pg.targets.GaussianRing(), __doc__, x_range=(-7.0, 7.0), y_range=(0.0, 7.0))
