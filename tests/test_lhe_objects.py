"""Les Houches files of matched generators: leptons and a varying number of partons."""

import numpy as np
import pytest
from test_lhe import HEAD, TAIL
from test_multiplicity_sample import same

from pyrogen import events
from pyrogen.events import JETS, LEPTONS, Multiplicity
from pyrogen.files import FileFormatError

OPTIONS = {"particles": LEPTONS["mu"], "objects": JETS, "most": 2}
COLUMNS = ["pt", "eta", "phi"]


def line(pdg, pt, eta, phi, m=0.0):
    px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
    energy = np.sqrt(px**2 + py**2 + pz**2 + m**2)
    return f" {pdg} 1 1 2 0 0 {px:.17g} {py:.17g} {pz:.17g} {energy:.17g} {m:.17g} 0. 9."


def event(*partons, leptons=(-13, 13), extra=()):
    lines = [line(leptons[1], 40.0, -0.5, 2.0), line(leptons[0], 30.0, 1.0, -1.0)]
    lines += [line(*parton) for parton in (*partons, *extra)]
    incoming = [f" {pdg} -1 0 0 501 0 0. 0. {sign}50. 50. 0. 0. 9." for pdg, sign in ((2, "+"), (-2, "-"))]
    return "\n".join(["<event>", f" {len(lines) + 2} 1 1.0 91.0 0.0075 0.118", *incoming, *lines, "</event>\n"])


GLUON, BOTTOM, SOFT = (21, 50.0, 0.5, 1.0), (5, 80.0, -2.0, -3.0, 4.7), (1, 15.0, 0.1, 0.2)


@pytest.fixture
def write(tmp_path):
    def write(*texts):
        path = tmp_path / "a.lhe"
        path.write_text(HEAD + "".join(texts) + TAIL)
        return path

    return write


def test_partons_become_sorted_objects(write):
    path = write(event(GLUON), event(GLUON, BOTTOM), event(SOFT))
    found = events.read(path, **OPTIONS)
    leptons, nan = [30, 1, -1, 40, -0.5, 2], [np.nan] * 4
    expected = [
        [*leptons, 50, 0.5, 1, 0, *nan],
        [*leptons, 80, -2, -3, 4.7, 50, 0.5, 1, 0],
        [*leptons, 15, 0.1, 0.2, 0, *nan],
    ]
    np.testing.assert_allclose(found.values, expected, rtol=1e-12)
    assert found.multiplicity == Multiplicity(6, 4, 2)
    assert found.names[:7] == (*(f"{c}_mu{s}" for s in "+-" for c in COLUMNS), "pt_j1")
    assert found.units[6:10] == ("GeV", "", "", "GeV")
    assert found.weights is None
    assert "left_out" not in found.provenance
    assert [part.multiplicity for part in events.stream(path, chunk=2, **OPTIONS)] == [Multiplicity(6, 4, 2)] * 2
    jet = events.read(path, **OPTIONS, label="jet", columns=["pt_mu+", "pt_jet1", "eta_jet1", "phi_jet1", "m_jet1"])
    assert jet.multiplicity == Multiplicity(1, 4, 1)


def test_soft_partons_are_no_objects(write):
    path = write(event(GLUON, SOFT), event(SOFT), event(BOTTOM))
    with pytest.raises(FileFormatError, match=r"event 1 \(counted from 0\) has 0 objects, fewer than least=1; .*skip"):
        events.read(path, **OPTIONS, pt_min=20.0)
    assert events.read(path, **OPTIONS, pt_min=20.0, least=0).counts.tolist() == [1, 0, 1]
    with pytest.warns(UserWarning, match="1 of 3 events were left out: 1 with fewer than 1 objects"):
        found = events.read(path, **OPTIONS, pt_min=20.0, missing="skip")
    assert found.counts.tolist() == [1, 1]
    assert found.provenance["left_out"] == {"with fewer than 1 objects": 1}


def test_more_partons_than_wanted(write):
    path = write(event(GLUON), event(SOFT, GLUON, BOTTOM))
    with pytest.raises(FileFormatError, match=r'event 1 .* has 3 objects, more than most=2; give surplus="leading"'):
        events.read(path, **OPTIONS)
    leading = events.read(path, **OPTIONS, surplus="leading")
    np.testing.assert_allclose(leading.column("pt_j1"), [50, 80])
    np.testing.assert_allclose(leading.column("pt_j2"), [np.nan, 50])
    assert leading.provenance["events_with_more_objects"] == 1
    with pytest.warns(UserWarning, match="1 with more than 2 objects"):
        assert len(events.read(path, **OPTIONS, surplus="skip")) == 1


def test_other_leptons_and_other_particles_count_as_ever(write):
    path = write(event(GLUON), event(GLUON, leptons=(-11, 11)), event(GLUON, extra=[(22, 5.0, 0.0, 0.0)]))
    with pytest.raises(FileFormatError, match=r"event 1 .*asks for one each of mu\+, mu-"):
        events.read(path, **OPTIONS)
    with pytest.warns(UserWarning, match="1 without the particles wanted, 1 with other particles"):
        assert len(events.read(path, **OPTIONS, missing="skip", others="skip")) == 1


def test_momenta_that_are_not_finite_are_named(write):
    for broken in ((21, np.inf, 0.1, 0.3), (-13, np.nan, 0.1, 0.3)):
        partons = [GLUON, broken] if broken[0] == 21 else [GLUON]
        text = event(*partons)
        if broken[0] != 21:
            text = text.replace(line(-13, 30.0, 1.0, -1.0), line(*broken))
        with pytest.raises(FileFormatError, match=r"event 1 \(counted from 0\) has a momentum"):
            events.read(write(event(GLUON), text), **OPTIONS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objects": JETS, "most": 2}, "particles is None; it must be given with objects"),
        ({"objects": JETS, "particles": LEPTONS["mu"]}, "most is None; it must be given"),
        ({"particles": LEPTONS["mu"], "most": 2}, r"most is \(2,\); it must be left out where objects is"),
        ({**OPTIONS, "objects": (13, 21)}, "objects is .* other ids than those of particles; both have mu-"),
        ({**OPTIONS, "surplus": "x"}, "surplus is 'x'"),
        ({**OPTIONS, "least": 3}, "least is 3; it must be at most most = 2"),
        ({**OPTIONS, "pt_min": -1.0}, "pt_min is -1"),
    ],
)
def test_wrong_options_are_named(write, options, message):
    with pytest.raises(ValueError, match=message):
        events.read(write(event(GLUON)), **options)


def test_such_samples_are_kept_by_hdf5(write, tmp_path):
    found = events.read(write(event(GLUON), event(GLUON, BOTTOM)), **OPTIONS)
    found.save(tmp_path / "a.h5")
    assert same(events.read(tmp_path / "a.h5").values, found.values)
