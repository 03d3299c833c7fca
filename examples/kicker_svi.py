"""The kicker ramp p(x, y) = 3x^2 of arXiv:2104.04543, sec. 3.2: a Bayesian flow trained by SVI, checked with the truth.

python examples/kicker_svi.py --quick
"""

import toy

import pyrogen as pg

if __name__ == "__main__":
    toy.run("kicker_svi", pg.targets.Kicker(), __doc__, x_range=toy.BOX, y_range=toy.BOX)
