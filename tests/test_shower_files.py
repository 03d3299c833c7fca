"""Files of showers: the layouts of the CaloChallenge and of CaloGAN, and files that are none."""

import h5py
import numpy as np
import pytest

import pyrogen as pg
from pyrogen import events

BINNING = """<Bins>
  <!-- as the binning files of the CaloChallenge -->
  <Bin pid="22" etaMin="0" etaMax="130" name="photon">
    <Layer id="0" r_edges="0,5,10" n_bin_alpha="1" />
    <Layer id="1" r_edges="0,2,4,8" n_bin_alpha="2" />
    <Layer id="2" r_edges="0" n_bin_alpha="1" />
    <Layer id="12" r_edges="0,100" n_bin_alpha="1" />
  </Bin>
  <Bin pid="211" name="pion"><Layer id="0" r_edges="0,5" n_bin_alpha="4" /></Bin>
</Bins>"""
SHOWERS = 1000.0 * np.arange(27).reshape(3, 9)
ENERGIES = np.array([[256.0], [512.0], [1024.0]])


@pytest.fixture
def challenge(tmp_path):
    """A file of the CaloChallenge and its binning."""
    (tmp_path / "binning.xml").write_text(BINNING)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_dataset("incident_energies", data=ENERGIES, compression="gzip")
        file.create_dataset("showers", data=SHOWERS, compression="gzip")
    return tmp_path / "a.hdf5"


def calogan(path, **change):
    rng = np.random.default_rng(1)
    content = {
        "energy": rng.uniform(1, 100, (4, 1)),
        "layer_0": rng.uniform(size=(4, 3, 96)),
        "layer_1": rng.uniform(size=(4, 12, 12)),
        "layer_2": rng.uniform(size=(4, 12, 6)),
        "overflow": rng.uniform(size=(4, 3)),
    } | change
    with h5py.File(path, "w") as file:
        for name, values in content.items():
            if values is not None:
                file[name] = values
    return content


def test_calochallenge(challenge):
    binning = challenge.with_name("binning.xml")
    found = events.read_showers(challenge, binning, particle="photon")
    assert np.allclose(found.values, SHOWERS / 1000) and np.allclose(found.energies, [0.256, 0.512, 1.024])  # GeV
    geometry = found.geometry
    assert geometry.sizes == (2, 6, 1) and geometry.numbers == (0, 1, 12)
    # Radii count first, then angles: the fourth cell of layer 1 is the innermost one of the second half.
    assert found.events.names[2:6] == ("E1_0_0", "E1_0_1", "E1_0_2", "E1_1_0") and found.events.names[-1] == "E12_0_0"
    assert np.allclose(geometry.layers[1].phi, [-1, -3, -6, 1, 3, 6]) and np.allclose(geometry.layers[1].eta, 0)
    assert "CaloChallenge" in repr(found)
    assert {"E_12", "eta_1"} < events.shower_observables(geometry).keys()


def test_boundaries_of_layers_do(challenge):
    found = events.read_showers(challenge, (0, 2, 8, 9), first=1, n=1)
    assert found.geometry.sizes == (2, 6, 1) and np.allclose(found.values, SHOWERS[1:2] / 1000)
    assert np.allclose(found.layer_energies, [[9 + 10, 6 * 13.5, 17]])
    for wrong in ((1, 9), (0, 2, 2, 9), (0,), "", 5, {"a": 1}):
        with pytest.raises((ValueError, TypeError), match="geometry"):
            events.read_showers(challenge, wrong)


def test_what_is_missing_is_asked_for(challenge):
    binning = challenge.with_name("binning.xml")
    with pytest.raises(ValueError, match="geometry is None; it must be the binning file of these 9 voxels"):
        events.read_showers(challenge)
    with pytest.raises(ValueError, match="particle is None; it must be one of photon, pion"):
        events.read_showers(challenge, binning)
    with pytest.raises(ValueError, match="geometry is .*one of the 9 voxels"):
        events.read_showers(challenge, binning, particle="pion")
    with pytest.raises(ValueError, match="first is 3; it must be below 3"):
        events.read_showers(challenge, (0, 9), first=3)
    with pytest.raises(ValueError, match="n is 3; it must be at most 2"):
        events.read_showers(challenge, (0, 9), first=1, n=3)
    with pytest.raises(FileNotFoundError):
        events.read_showers(challenge.with_name("no.hdf5"))
    with pytest.raises(FileNotFoundError):
        events.read_showers(challenge, "no.xml")


def test_calogan(tmp_path):
    content = calogan(tmp_path / "gamma.hdf5")
    found = events.read_showers(tmp_path / "gamma.hdf5")
    assert found.geometry == events.ShowerGeometry.calogan()
    assert np.allclose(found.energies, content["energy"][:, 0])  # GeV as they are
    for image, name in zip(found.images, ("layer_0", "layer_1", "layer_2"), strict=True):
        assert np.allclose(image, content[name] / 1000)  # MeV
    assert np.allclose(found.overflow, content["overflow"] / 1000)
    calogan(tmp_path / "b.hdf5", overflow=None)
    assert events.read_showers(tmp_path / "b.hdf5", first=2).overflow is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer_1": None}, "has no dataset layer_1"),
        ({"layer_1": np.ones((4, 12, 6))}, r"'layer_1' has the shape \[4, 12, 6\]; it must be \[4, 12, 12\]"),
        ({"layer_2": np.ones((3, 12, 6))}, r"'layer_2' has the shape \[3, 12, 6\]; it must be \[4, 12, 6\]"),
        ({"energy": np.ones((3, 1))}, r"incident energies have the shape \[3, 1\]; it must be \[4, 1\]"),
        ({"energy": np.zeros((4, 1))}, "energies must be positive and finite; 4 are not"),
        ({"layer_0": -np.ones((4, 3, 96))}, "values must be not negative.*the first is -0.001 in shower 0, column 0"),
        ({"layer_0": np.full((4, 3, 96), np.nan)}, "NaN"),
        ({"overflow": np.ones((4, 2))}, r"'overflow' has the shape \[4, 2\]; it must be \[4, 3\]"),
        ({"layer_0": np.array(["a"] * 4, dtype="S1")}, "'layer_0' is no table of numbers"),
        ({"energy": None}, "an HDF5 file without showers: it has neither"),
    ],
)
def test_content_that_is_no_shower_is_named(tmp_path, change, message):
    calogan(tmp_path / "gamma.hdf5", **change)
    with pytest.raises(pg.FileFormatError, match=rf"gamma\.hdf5.*{message}"):
        events.read_showers(tmp_path / "gamma.hdf5")


def test_links_and_damage(tmp_path, challenge):
    with h5py.File(tmp_path / "link.hdf5", "w") as file:
        file["incident_energies"] = ENERGIES
        file["showers"] = h5py.ExternalLink("a.hdf5", "/showers")
    with pytest.raises(pg.FileFormatError, match="is a link to"):
        events.read_showers(tmp_path / "link.hdf5", (0, 9))
    whole = challenge.read_bytes()
    for content in (b"", b"no HDF5", whole[: len(whole) // 2]):
        challenge.write_bytes(content)
        with pytest.raises(pg.FileFormatError, match=r"a\.hdf5"):
            events.read_showers(challenge, (0, 9))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no binning file"),
        ("<Bins><Bin>", "no whole XML file"),
        ("<a/>", "no binning of the CaloChallenge"),
        ('<Bins><Bin name="x"/></Bins>', "no layer with cells"),
        ('<Bins><Bin name="x"><Layer id="3" r_edges="0,a" n_bin_alpha="1"/></Bin></Bins>', "layer 3 has r_edges='0,a'"),
        ('<Bins><Bin name="x"><Layer id="3" r_edges="4,2" n_bin_alpha="1"/></Bin></Bins>', "layer 3 .*increasing"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><Bins><Bin name="&b;"/></Bins>', "no binning file"),
    ],
)
def test_binning_files_that_are_none(tmp_path, text, message):
    (tmp_path / "binning.xml").write_text(text)
    with pytest.raises(pg.FileFormatError, match=rf"binning\.xml.*{message}"):
        events.ShowerGeometry.from_binning(tmp_path / "binning.xml")


def test_own_files_come_back(tmp_path):
    sample = events.showers(20, "gamma", seed=2, progress=False)
    events.write_showers(sample, tmp_path / "g.hdf5")
    found = events.read_showers(tmp_path / "g.hdf5")
    assert found.geometry == sample.geometry and found.events.provenance == sample.events.provenance
    assert np.allclose(found.values, sample.values, rtol=1e-6) and np.allclose(found.energies, sample.energies)
    assert np.array_equal(found.values == 0, sample.values == 0)
    events.write_showers(found, tmp_path / "again.hdf5")  # to the same bits
    assert np.array_equal(events.read_showers(tmp_path / "again.hdf5").values, found.values)
    assert np.array_equal(events.read_showers(tmp_path / "g.hdf5", first=5, n=2).values, found.values[5:7])
    with h5py.File(tmp_path / "g.hdf5") as file:  # others read it as a file of the CaloChallenge
        assert file["showers"].shape == (20, 90) and file["incident_energies"].shape == (20, 1)
        assert file["incident_energies"][0, 0] == pytest.approx(1000 * sample.energies[0])
    with pytest.raises(ValueError, match="showers is .*without overflow"):
        events.write_showers(events.Showers(sample.values, sample.energies, sample.geometry, np.ones((20, 3))), "x.h5")


def test_showers_are_streamed_to_a_file(tmp_path):
    path = events.showers_to(tmp_path / "s.hdf5", 1200, "pi+", seed=5, progress=False)
    found, wanted = events.read_showers(path), events.showers(1200, "pi+", seed=5, progress=False)
    assert np.allclose(found.values, wanted.values, rtol=1e-6) and found.events.provenance == wanted.events.provenance
    assert [each.name for each in tmp_path.iterdir()] == ["s.hdf5"]


def test_a_run_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "s.hdf5"
    events.showers_to(path, 10, progress=False)
    before = path.read_bytes()
    calls = []

    def broken(*arguments):
        calls.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr("pyrogen.events.shower_source.shower_cells", broken)
    with pytest.raises(KeyboardInterrupt):
        events.showers_to(path, 10, progress=False)
    assert calls and path.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == ["s.hdf5"]


def test_a_changed_file_is_noticed(tmp_path):
    path = events.showers_to(tmp_path / "s.hdf5", 10, progress=False)
    with h5py.File(path, "r+") as file:
        file["showers"][3, 4] = 7.0
    with pytest.raises(pg.FileFormatError, match=r"s\.hdf5 is damaged: rows 0 to 9"):
        events.read_showers(path)
