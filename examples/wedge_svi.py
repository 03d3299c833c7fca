"""The wedge ramp p(x, y) = 2x of arXiv:2104.04543, sec. 3.1: a Bayesian flow trained by SVI, checked with the truth.

python examples/wedge_svi.py --quick
"""

import toy

import pyrogen as pg

if __name__ == "__main__":
    toy.run("wedge_svi", pg.targets.Wedge(), __doc__, x_range=toy.BOX, y_range=toy.BOX)
