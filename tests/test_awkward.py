"""Samples as arrays of awkward, and back."""

import numpy as np
import pytest
from test_multiplicity_files import equal, full
from test_multiplicity_sample import rows, same

import pyrogen as pg
from pyrogen.events import Multiplicity, from_awkward, to_awkward

ak = pytest.importorskip("awkward")

NAMES = [f"{c}_mu{s}" for s in "+-" for c in ("pt", "eta", "phi")]
NAMES += [f"{c}_j{i}" for i in (1, 2, 3) for c in ("pt", "eta", "phi", "m")]


def z_jets() -> pg.EventSample:
    """Z and jets with falling pT."""
    values = np.random.default_rng(1).uniform(0.5, 3, (20, 18))
    for i in range(3):
        values[:, 6 + 4 * i] += 10 * (3 - i)
    counts = np.arange(20) % 3 + 1
    units = [("", "GeV")[name.startswith(("pt", "m_"))] for name in NAMES]
    return pg.EventSample.padded(values, counts, Multiplicity(6, 4, 3), NAMES, units, provenance={"seed": 1})


def test_records_are_what_vector_expects():
    vector = pytest.importorskip("vector")
    vector.register_awkward()
    sample = z_jets()
    array = to_awkward(sample)
    assert array.fields == ["mu+", "mu-", "jets"]
    assert array["mu+"].fields == ["pt", "eta", "phi"]
    assert ak.num(array.jets).tolist() == sample.counts.tolist()
    assert ak.parameters(array["mu+"])["__record__"] == "Momentum3D"
    assert ak.parameters(ak.flatten(array.jets))["__record__"] == "Momentum4D"
    pt, eta, phi, m = sample.values[2, 10:14]  # the second jet of an event with three
    jet = array.jets[2, 1]
    assert jet.pz == pytest.approx(pt * np.sinh(eta))
    assert jet.energy == pytest.approx(np.sqrt((pt * np.cosh(eta)) ** 2 + m**2))
    one, two = array.jets[2, 0], array.jets[2, 1]
    assert one.deltaR(two) == pytest.approx(
        np.hypot(sample.values[2, 7] - eta, (sample.values[2, 8] - phi + np.pi) % (2 * np.pi) - np.pi)
    )


@pytest.mark.parametrize("sample", [z_jets(), z_jets()[::2], z_jets().select(NAMES[6:])])
def test_the_way_back_gives_the_same_sample(sample):
    assert equal(from_awkward(to_awkward(sample), most=3), sample)


def test_weights_and_their_kin_are_kept():
    sample = full()
    array = to_awkward(sample, objects="objects")
    assert array.weight.tolist() == [1, 2, 3, 4, 5]
    back = from_awkward(array, 3, objects="objects", unsorted="sort")
    assert same(back.values[:, 1], rows()[:, 1])
    assert back.weights.tolist() == sample.weights.tolist()
    assert back.log_weights.shape == (5, 2)


def test_columns_that_take_turns_come_back_in_their_order():
    names = ["pt_a", "pt_b", "eta_a", "eta_b", "pt_j1"]
    sample = pg.EventSample(np.arange(10.0).reshape(2, 5), names, multiplicity=Multiplicity(4, 1, 1))
    array = to_awkward(sample)
    assert array.fields == ["a", "b", "jets"]
    assert equal(from_awkward(array, 1), sample)


def test_a_plain_sample_has_no_list():
    array = to_awkward(pg.EventSample(np.ones((3, 2)), ["met", "pt_l"]))
    assert array.fields == ["met", "l"]


def test_selections_keep_units_and_provenance():
    array = to_awkward(z_jets())
    two = from_awkward(array[ak.num(array.jets) == 2], most=2)
    assert two.units[6:8] == ("GeV", "")
    assert two.provenance == {"seed": 1}
    assert set(two.counts) == {2}


def user(jets, **fields):
    return ak.Array([{"jets": [{"pt": float(pt)} for pt in event], "met": 1.0, **fields} for event in jets])


@pytest.mark.parametrize(
    ("jets", "options", "message"),
    [
        (
            [[3, 2], [4, 3, 2, 1]],
            {},
            r"1 of 2 events have more than most=3 objects; .* event 1 with 4.*leading",
        ),
        ([[3, 2], []], {}, "1 of 2 events have fewer than least=1 objects; the first is event 1 with 0"),
        ([[3], [2, 4]], {}, r"1 of 2 events have objects that are not sorted .* event 1\. Give unsorted"),
        ([[3], [5, np.nan]], {}, "1 numbers 'pt' of objects are missing, NaN or infinite; the first is in event 1"),
        ([[3], [2]], {"objects": "x"}, "objects is 'x'; it must be one of the fields: jets, met"),
        ([[3], [2]], {"objects": "met"}, "the field 'met' must be a list of records"),
    ],
)
def test_events_that_do_not_fit_are_named(jets, options, message):
    with pytest.raises(ValueError, match=message):
        from_awkward(user(jets), 3, **options)


def test_missing_numbers_and_other_lists_are_named():
    missing = ak.Array([{"met": 1, "jets": [{"pt": 2.0, "m": 1.0}]}, {"met": 1, "jets": [{"pt": 3.0, "m": None}]}])
    with pytest.raises(ValueError, match="'m' of objects are missing, .* in event 1"):
        from_awkward(missing, 3)
    with pytest.raises(ValueError, match="the field 'tracks' .* must be one real number for each event"):
        from_awkward(user([[1], [1]], tracks=[1, 2]), 3)
    absent = ak.Array([{"met": 1, "jets": [{"pt": 2.0}]}, {"met": None, "jets": [{"pt": 3.0}]}])
    with pytest.raises(ValueError, match="'met'"):
        from_awkward(absent, 3)
    for wrong in (np.ones(3), ak.Array([[1.0], [2.0]]), None):
        with pytest.raises(TypeError, match="array is a .*awkward array of records"):
            from_awkward(wrong, 3)
    with pytest.raises(TypeError, match="fields of its own"):
        from_awkward(user([[1]], lepton={"p4": {"pt": 1.0}}), 3)


def test_surplus_objects_go_and_unsorted_ones_are_sorted_on_request():
    array = user([[3, 2, 9, 1, 4], [7], [5, 6]])
    found = from_awkward(array, 2, surplus="leading", unsorted="sort")
    assert found.names == ("met", "pt_j1", "pt_j2")
    assert same(found.values, np.array([[1, 9, 4], [1, 7, np.nan], [1, 6, 5]]))
    assert found.provenance == {"events_with_more_objects": 1}
    kept = from_awkward(array, 2, surplus="leading", unsorted="keep")
    assert same(kept.values[0], np.array([1, 3, 2]))
    assert from_awkward(array[1:2], 2, label="jet").names == ("met", "pt_jet1", "pt_jet2")


def test_events_without_objects():
    found = from_awkward(user([[], [5]]), 1, least=0)
    assert found.counts.tolist() == [0, 1]
    assert equal(from_awkward(to_awkward(found), 1, least=0), found)


def test_names_that_are_no_objects_are_refused():
    sample = pg.EventSample(rows(), multiplicity=Multiplicity(2, 2, 3))
    with pytest.raises(ValueError, match="names of the columns of objects must be <field>_<label><number>"):
        to_awkward(sample)
    clash = pg.EventSample(rows()[:, :3][:1], ["l", "pt_l", "pt_j1"], multiplicity=Multiplicity(2, 1, 1))
    with pytest.raises(ValueError, match="such that l is one field alone"):
        to_awkward(clash)


def test_events_without_a_list_and_lists_of_lists_are_named():
    """None was taken for an empty list."""
    jets = ak.Array([[{"pt": 2.0}], None])
    with pytest.raises(ValueError, match="1 of 2 events have no list of objects but None; the first is event 1"):
        from_awkward(ak.Array({"met": [1.0, 2.0], "jets": jets}), 2, least=0)
    with pytest.raises(ValueError, match="'met' .* it is None in 1 events, the first of them event 0"):
        from_awkward(ak.Array({"met": [None, 2.0], "jets": jets[[0, 0]]}), 2)
    with pytest.raises(TypeError, match="the field 'pt' of objects must be one real number for each; got"):
        from_awkward(ak.Array({"met": [1.0], "jets": [[{"pt": [2.0, 1.0]}]]}), 2)
    with pytest.raises(ValueError, match="there is no event in it"):
        from_awkward(ak.Array({"met": [1.0], "jets": jets[:1]})[:0], 2)
